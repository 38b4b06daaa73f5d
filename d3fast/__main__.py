# SPDX-License-Identifier: Apache-2.0
"""``python -m d3fast`` is the command ``d3fast``."""

import sys
import traceback

_DEFECT = 70  # as in d3fast.cli.exit_codes, which may be what cannot be imported


def main() -> None:
    """Run the command line; an import that fails is no sign of a backdoor, which is code 1."""
    try:
        from d3fast.cli import app
    except Exception:
        traceback.print_exc()
        sys.exit(_DEFECT)
    app(prog_name="d3fast")


if __name__ == "__main__":
    main()
