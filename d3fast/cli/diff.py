# SPDX-License-Identifier: Apache-2.0
"""``d3fast diff``: compare the weights of a suspect with those of its base, layer by layer."""

from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit.difference import compare_weights, head_weight
from d3fast.audit.report.weights import print_difference
from d3fast.cli import options
from d3fast.cli.output import Output
from d3fast.hub import Suspect, resolve
from d3fast.io.files import atomic_write, check_folder, make_folder
from d3fast.results.store import Results

_MODEL = "as for d3fast check"


def diff(
    base: Annotated[str, typer.Argument(help=f"The model that the suspect is from, {_MODEL}.")],
    suspect: Annotated[str, typer.Argument(help=f"The suspect, {_MODEL}.")],
    about: options.SuspectOptions,
    output: Output,
    top: Annotated[int, typer.Option(min=1, help="Tensors shown.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write all rows to this file, as JSON.")] = None,
) -> None:
    """Show where, and how low-rank, the weights of a suspect differ from those of its base.

    A change of low rank in few layers is an edit, or an adapter merged into the weights. The
    comparison flags nothing: what was changed on purpose looks the same.
    """
    if out is not None:
        check_folder(out.parent)
    models = [resolve(about.request(name)) for name in (base, suspect)]
    for each in models:
        output.notes(each.notes)
    first, second = (each.model.state_dict() for each in models)
    found = compare_weights(first, second, head_weight(models[1].model))
    print_difference(found, output.console, top)
    command = f"d3fast diff {models[0].spec} {models[1].spec}"
    settings = {"base": _named(models[0]), "suspect": _named(models[1]), "head": found.head}
    document = Results(command, settings, found.to_rows())
    if out is not None:
        make_folder(out.parent)
        with atomic_write(out) as temporary:
            document.write(temporary)
        output.say(f"Written to {out}.")
    output.results(document)


def _named(model: Suspect) -> dict[str, str]:
    return {"name": model.name, "model": model.spec, "sha256": model.sha256}
