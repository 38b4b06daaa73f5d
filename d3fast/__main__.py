# SPDX-License-Identifier: Apache-2.0
"""``python -m d3fast`` is the command ``d3fast``."""

from d3fast.cli import app

if __name__ == "__main__":
    app(prog_name="d3fast")
