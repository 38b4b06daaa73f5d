# SPDX-License-Identifier: Apache-2.0
"""``python -m d3fast`` is the command ``d3fast``."""

import signal
import sys
import traceback

from d3fast.runtime.extras import CLI, require

# As in d3fast.cli.exit_codes, which may be what cannot be imported.
_REFUSED, _DEFECT = 2, 70


def main() -> None:
    """Run the command line; an import that fails is no sign of a backdoor, which is code 1."""
    # A library that catches everything while it is imported would swallow Ctrl-C or fail by it.
    found = signal.getsignal(signal.SIGINT)
    if found is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        require("the command d3fast", *CLI)
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(_REFUSED)
    try:
        from d3fast.cli import app
    except Exception:
        traceback.print_exc()
        sys.exit(_DEFECT)
    signal.signal(signal.SIGINT, found)
    app(prog_name="d3fast")


if __name__ == "__main__":
    main()
