# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as a suspect: its graph is run by d3fast, operator by operator, with gradients.

Nothing of ONNX Runtime is used: it would give no gradients, and an untrusted graph would be handed
to a compiler. ``d3fast.hub.programs`` computes a fixed list of operators instead.
"""

from pathlib import Path

from d3fast.hub.classifier import Classifier
from d3fast.hub.onnx_writer import OnnxWriter
from d3fast.hub.programs.batches import free_batch
from d3fast.hub.programs.input_form import InputForm, input_form
from d3fast.hub.programs.measure import Cost, measure
from d3fast.hub.programs.onnx_program import Builder
from d3fast.hub.suspect import Request, Suspect
from d3fast.io.files import files_digest
from d3fast.io.onnx_file import OnnxFile, read_onnx
from d3fast.io.untrusted import error_text, printable

SUFFIX = ".onnx"
_OUTPUTS = 4  # that are tried


def resolve_onnx(request: Request) -> Suspect | None:
    """Read an ONNX file.

    Raises:
        ValueError: a damaged file; one that is no image classifier, has operators that d3fast does
            not compute, or takes too much to run; a second file as checkpoint.
        OSError: a file that cannot be opened.
    """
    given = request.checkpoint
    if given is not None and given.suffix.lower() == SUFFIX:
        raise ValueError(f"{printable(given)} is a whole program: give it alone, as the model")
    path = Path(request.model)
    if path.suffix.lower() != SUFFIX or "://" in request.model or path.is_dir():
        return None
    shown = printable(path)
    if request.checkpoint is not None:
        raise ValueError(f"{shown} has its weights: give it alone, without --checkpoint")
    file = read_onnx(path)
    try:
        return _suspect(file, path, request)
    except OSError:
        raise
    except Exception as error:  # attributes of any type
        raise ValueError(f"{shown} cannot be checked: {error_text(error)}") from None


def _suspect(file: OnnxFile, path: Path, request: Request) -> Suspect:
    if len(file.inputs) != 1:
        raise ValueError(f"it has {len(file.inputs)} inputs instead of one of images")
    form = input_form(file.inputs[0].shape, file.inputs[0].dtype, request)
    built, cost, output = _built(file, form)
    program = built.program
    built.fill()
    notes = [*form.notes(), *free_batch(program)]
    if len(file.outputs) > 1:
        notes.append(f"Of {len(file.outputs)} outputs, {printable(output, 60)!r} is the scores.")
    if built.softmax:
        notes.append("The softmax at the end is left out: scores are logits.")
    paths = tuple(dict.fromkeys((path, *file.paths)))
    kind = f"ONNX, {len(built.nodes)} operators, {cost.classes} outputs"
    maker = f", by {file.producer}" if file.producer else ""
    return Suspect(
        model=Classifier(program, request.mean, request.std).eval(),
        name=path.stem,
        spec=printable(path.name, 100),
        family="onnx",
        input=form.image_input(request),
        classes=None,
        files=paths,
        sha256=files_digest(paths),
        notes=(f"{kind}{maker}.", *notes),
        save=OnnxWriter(path, built.sources),
    )


def _built(file: OnnxFile, form: InputForm) -> tuple[Builder, Cost, str]:
    """Return the program of the first output that is a row of scores for each image."""
    problem = ValueError("it has no output")
    for output in file.outputs[:_OUTPUTS]:
        try:
            built = Builder(file, output, form)
            return built, measure(built.program), output
        except ValueError as error:
            problem = error if output == file.outputs[0] else problem
    raise problem
