# SPDX-License-Identifier: Apache-2.0
"""``d3fast view``: serve the pages of all audits and benchmarks of a folder on loopback."""

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit.places import RUNS
from d3fast.io.untrusted import printable
from d3fast.view.server import ViewServer


def view(
    folder: Annotated[Path, typer.Argument(help="Folder of audits and benchmarks.")] = RUNS,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Show all audits and benchmarks of a folder as read-only pages on this machine.

    List, filter and sort them, compare two audits, open the page of each. Ctrl-C ends it.
    """
    with ViewServer(folder, port) as server:
        typer.echo(f"{printable(folder)} is shown at {server.address} (Ctrl-C ends this)")
        if browser and _has_display():
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("", err=True)


def _has_display() -> bool:
    """Without a display ``webbrowser`` would start a browser inside the terminal."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
