# SPDX-License-Identifier: Apache-2.0
"""Results of runs: typed rows, the file store, the job engine, tables, plots and pages."""

from d3fast.runtime.extras import CLI, require

require("an audit, a benchmark or a curvature report", *CLI)
