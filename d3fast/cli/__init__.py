# SPDX-License-Identifier: Apache-2.0
"""The command line ``d3fast``: one file per command, put together in ``main``."""

from d3fast.runtime.extras import CLI, require

require("the command d3fast", *CLI)

from d3fast.cli.main import app  # noqa: E402  # imports them

__all__ = ["app"]
