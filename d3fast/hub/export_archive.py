# SPDX-License-Identifier: Apache-2.0
"""A ``torch.export`` archive as a suspect: its graph is run by a list of operators.

``torch.export.load`` is not used, see ``d3fast.io.exported_file``. An archive whose graph d3fast
does not run is a weight file, whose architecture is inferred.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from d3fast.hub.classifier import Classifier
from d3fast.hub.factory import WeightsWriter
from d3fast.hub.families import resolve_weight_file
from d3fast.hub.programs.aten_graph import AtenGraph, read_graph
from d3fast.hub.programs.aten_program import AtenBuilder
from d3fast.hub.programs.batches import free_batch
from d3fast.hub.programs.input_form import InputForm, input_form
from d3fast.hub.programs.measure import Cost, measure
from d3fast.hub.suspect import Request, Suspect
from d3fast.io.checkpoints import WeightsRead
from d3fast.io.exported_file import ExportedProgram, read_program
from d3fast.io.files import sha256
from d3fast.io.untrusted import error_text, open_regular, printable
from d3fast.io.weight_files import EXPORTED

_OUTPUTS = 4  # that are tried


def resolve_export(request: Request) -> Suspect | None:
    """Read an archive of ``torch.export``.

    Raises:
        ValueError: a damaged archive; one whose graph is not run and whose architecture cannot be
            inferred.
        OSError: a file that cannot be opened.
    """
    path = Path(request.model)
    if path.suffix.lower() != EXPORTED or "://" in request.model or path.is_dir():
        return None
    if request.checkpoint is not None:
        raise ValueError(f"{printable(path)} has its weights: give it without --checkpoint")
    try:
        return _suspect(path, request)
    except ValueError as error:
        reason = printable(error)
    try:
        suspect = resolve_weight_file(request)
    except ValueError as error:
        raise ValueError(f"{printable(error)}; its program is not run: {reason}") from None
    assert suspect is not None  # a name of its suffix
    said = f"The program of the archive is not run ({reason}); its weights are read."
    return replace(suspect, notes=(said, *suspect.notes))


def _suspect(path: Path, request: Request) -> Suspect:
    with open_regular(path) as stream:
        try:
            file = read_program(stream)
            graph = read_graph(file.graph)
            if len(graph.inputs) != 1:
                raise ValueError(f"it has {len(graph.inputs)} inputs instead of one of images")
            form = input_form(graph.shape, graph.dtype, request)
            built, cost, output = _built(file, graph, form)
            if built.nbytes > path.stat().st_size:
                raise ValueError(f"its tensors take {built.nbytes} bytes, more than the file")
            built.fill()
        except Exception as error:
            raise ValueError(error_text(error)) from None
    notes = [*form.notes(), *free_batch(built.program)]
    if len(graph.outputs) > 1:
        notes.append(f"Of {len(graph.outputs)} outputs, {printable(output, 60)!r} is the scores.")
    if built.softmax:
        notes.append("The softmax at the end is left out: scores are logits.")
    dtypes = {name: entry.dtype for name, (_, entry) in built.sources.items()}
    names: Mapping[str, str] = {name: stored for name, (stored, _) in built.sources.items()}
    kind = f"torch.export, {len(built.nodes)} operators, {cost.classes} outputs."
    return Suspect(
        model=Classifier(built.program, request.mean, request.std).eval(),
        name=path.stem,
        spec=printable(path.name, 100),
        family="torch.export",
        input=form.image_input(request),
        classes=None,
        files=(path,),
        sha256=sha256(path),
        notes=(kind, *notes),
        save=WeightsWriter(WeightsRead(dtypes, names, ())),
    )


def _built(
    file: ExportedProgram, graph: AtenGraph, form: InputForm
) -> tuple[AtenBuilder, Cost, str]:
    """Return the program of the first output that is a row of scores for each image."""
    problem = ValueError("it has no output")
    for output in graph.outputs[:_OUTPUTS]:
        try:
            built = AtenBuilder(file, graph, output, form)
            return built, measure(built.program), output
        except ValueError as error:
            problem = error if output == graph.outputs[0] else problem
    raise problem
