# SPDX-License-Identifier: Apache-2.0
"""The command line ``d3fast``: its commands, and the handling of errors.

Exit codes are those of ``exit_codes``. Ctrl-C ends the process by SIGINT: 130 in a shell.
"""

import gc
import json
import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from d3fast import __version__
from d3fast.cli.attack import attack
from d3fast.cli.benchmark import benchmark
from d3fast.cli.calibrate import calibrate
from d3fast.cli.check import check
from d3fast.cli.demo import demo
from d3fast.cli.detox import detox
from d3fast.cli.diff import diff
from d3fast.cli.exit_codes import DEFECT, REFUSED
from d3fast.cli.groups import with_groups
from d3fast.cli.inspect import inspect
from d3fast.cli.monitor import monitor
from d3fast.cli.pilot import pilot
from d3fast.cli.record import record
from d3fast.cli.repair import repair
from d3fast.cli.report import report
from d3fast.cli.spectrum import spectrum
from d3fast.cli.view import view
from d3fast.io.untrusted import error_text, printable
from d3fast.runtime import environment
from d3fast.runtime.devices import is_out_of_memory

_MAX_ERROR = 2000  # characters: names in an error may come from untrusted files
_ARGUMENTS = "d3fast.arguments"


class _OneLineErrors(TyperGroup):
    """Print invalid input as one line; a defect keeps its traceback and has its own code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments for ``invoke``, which may refuse them."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            _check_encoding(ctx.meta[_ARGUMENTS])
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            typer.echo(f"error: {printable(error, _MAX_ERROR)}", err=True)
            raise typer.Exit(REFUSED) from None
        except Exception as error:
            if hasattr(error, "exit_code"):  # of typer and click: a code or wrong usage
                raise
            if is_out_of_memory(error):
                typer.echo(f"error: out of memory: {error_text(error)}", err=True)
                raise typer.Exit(REFUSED) from None
            # Python's own code for a traceback is 1, which means signs of a backdoor here.
            typer.echo(traceback.format_exc(), err=True, nl=False)
            raise typer.Exit(DEFECT) from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not end in a traceback
            typer.echo("interrupted", err=True)
        # The interrupted frames are gone here; their semaphores are freed, not reported as leaked.
        gc.collect()
        # Ended by the signal itself: a shell reports 130 and stops the loop around this.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)


def _check_encoding(arguments: list[str]) -> None:
    """Refuse names that could not be written into a results file."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ValueError(f"'{printable(argument)}' is not UTF-8; rename the file") from None


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Repair neural networks that may carry a backdoor (D3, arXiv 2411.09585).",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"d3fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # Appended: a file beside a suspect checkpoint must not pass for an installed package.
    sys.path.append(os.getcwd())


for command in (
    check,
    repair,
    inspect,
    pilot,
    detox,
    report,
    monitor,
    spectrum,
    demo,
    attack,
    calibrate,
    diff,
    record,
    view,
):
    app.command(command.__name__)(with_groups(command))
app.add_typer(benchmark, name="benchmark")


@app.command("env")
def _env(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions, the built extension and the machine."""
    facts = environment.describe()
    if as_json:
        typer.echo(json.dumps(dict(facts), indent=2))
        return
    width = max(len(label) for label, _ in facts)
    for label, value in facts:
        typer.echo(f"{label:<{width}}  {value}")
