# SPDX-License-Identifier: Apache-2.0
"""Results of runs: typed rows, the file store, the job engine, tables, plots and pages."""
