# SPDX-License-Identifier: Apache-2.0
"""Tables, plots and the page of a benchmark."""

from d3fast.runtime.extras import CLI, require

require("the report of a benchmark", *CLI)
