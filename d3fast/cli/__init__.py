# SPDX-License-Identifier: Apache-2.0
"""The command line ``d3fast``: one file per command, put together in ``main``."""

from d3fast.cli.main import app

__all__ = ["app"]
