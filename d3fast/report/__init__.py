# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind: the JSON of its results, tables, plots."""
