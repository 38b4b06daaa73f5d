# SPDX-License-Identifier: Apache-2.0
"""Formats that are refused, each with its reason.

A suspect is inspected by gradients or by the weights of its head, and repaired by training: d3fast
needs weights by name and an architecture that it can build, or a program of operators that it knows
(``d3fast.hub.onnx``, ``d3fast.hub.export_archive``). A TorchScript archive or an engine is another
program.
"""

from pathlib import Path
from types import MappingProxyType

from d3fast.hub.suspect import Request, Suspect
from d3fast.io.untrusted import printable

_SCRIPT = "is TorchScript, a program that would have to be run to be read"
_ENGINE = "is a compiled program without weights that a detector could read"
_REASONS = MappingProxyType(
    {
        ".torchscript": _SCRIPT,
        ".ts": _SCRIPT,
        ".ptl": _SCRIPT,
        ".pte": _ENGINE,
        ".engine": _ENGINE,
        ".tflite": _ENGINE,
        ".mlmodel": _ENGINE,
        ".gguf": "holds weights of llama.cpp, which d3fast cannot build a model for",
        ".h5": "is a file of Keras: d3fast reads models of PyTorch",
        ".keras": "is a file of Keras: d3fast reads models of PyTorch",
        ".pkl": "is a pickle, which can run code",
        ".pickle": "is a pickle, which can run code",
        ".joblib": "is a pickle, which can run code",
    }
)


def refuse_program(request: Request) -> Suspect | None:
    """Refuse a file that is a program, as the model or as its weights.

    Raises:
        ValueError: the reason, and what to give instead.

    Example:
        >>> refuse_program(Request("model.ts"))
        Traceback (most recent call last):
        ValueError: model.ts is TorchScript, a program that would have to be run to be read: give \
the model's state_dict() as .safetensors, and its architecture as timm:NAME, torchvision:NAME or \
package.module:factory
    """
    named = None if "://" in request.model else Path(request.model)
    for path in (request.checkpoint, named):
        reason = None if path is None else _REASONS.get(path.suffix.lower())
        if path is not None and reason is not None and not path.is_dir():
            raise ValueError(
                f"{printable(path)} {reason}: give the model's state_dict() as .safetensors, and "
                "its architecture as timm:NAME, torchvision:NAME or package.module:factory"
            )
    return None
