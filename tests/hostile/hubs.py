"""Hostile hub folders: their indexes, shards, configurations and preprocessing."""

import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from d3fast.hub import Request, Suspect, resolve
from tests.hostile.files import BAD_NAME, LOADS, Case, Reduced
from tests.hostile.models import state, torch_file
from tests.hostile.weights import MISFIT

Content = bytes | Callable[[Path], None]
FIRST, SECOND = "model-1.safetensors", "model-2.safetensors"
INDEX, CONFIG = "model.safetensors.index.json", "config.json"
PREPROCESSOR = "preprocessor_config.json"
BRACKETS = b'{"weight_map": ' + b"[" * 60_000
SMALL_OBJECTS = b'{"weight_map": [' + b"{}," * (2**23 // 3 - 20) + b"0]}"


def _folder(files: dict[str, Content]) -> Callable[[Path], Path]:
    """Writes a folder of files, each given by its bytes or by who makes it."""

    def make(place: Path) -> Path:
        folder = place / "hub"
        folder.mkdir()
        for name, content in files.items():
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                content(folder / name)
        return folder

    return make


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _sparse(start: bytes, length: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, length)

    return make


def _outside(path: Path) -> None:
    """A link to a good file beside the folder."""
    (path.parent.parent / path.name).write_bytes(SHARDS[path.name])
    path.symlink_to(Path("..") / path.name)


def _halves(held: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    names = sorted(held)
    first = {name: held[name] for name in names[:3]}
    return first, {name: held[name] for name in names[3:]}


_PARTS = _halves(state())
SHARDS = {FIRST: save(_PARTS[0]), SECOND: save(_PARTS[1])}
_PLACES = dict.fromkeys(_PARTS[0], FIRST) | dict.fromkeys(_PARTS[1], SECOND)


def index(**changes: Any) -> bytes:
    """The index of two good shards, some of it replaced."""
    return json.dumps({"metadata": {}, "weight_map": _PLACES | changes}).encode()


def _sharded(index: Content, **shards: Content) -> Callable[[Path], Path]:
    return _folder({INDEX: index, **SHARDS, **shards})


def _second(**changes: Any) -> Callable[[Path], Path]:
    return _sharded(index(), **{SECOND: save(_PARTS[1] | changes)})


_CODE = torch_file(state(**{"3_bias": Reduced(os.system, "touch mark")}))
_MOVED = next(iter(_PARTS[0]))

HUB_FILES = [
    Case("no weights", _folder({CONFIG: b"{}"}), "holds no model.safetensors"),
    Case("a pipe", _folder({"model.safetensors": os.mkfifo}), "not a regular file"),
    Case("an endless device", _folder({"model.safetensors": _link("/dev/zero")}), "leads out of"),
    Case("weights that link to themselves", _folder({"model.safetensors": _link("a")}), "missing"),
    Case("code in a pickle", _folder({"pytorch_model.bin": _CODE}), "can run code"),
    Case("an index that is a pipe", _sharded(os.mkfifo), "not a regular file"),
    Case("an index that is empty", _sharded(b""), "not usable JSON"),
    Case("an index 60,000 brackets deep", _sharded(BRACKETS), "nested too deeply"),
    Case("an index of small objects", _sharded(SMALL_OBJECTS), "no weight_map"),
    Case("an index of a terabyte", _sharded(_sparse(b"{", 2**40)), "longer than"),
    Case("an index without a map", _sharded(b"{}"), "no weight_map"),
    Case("an index with a name twice", _sharded(b'{"a": 1, "a": 2}'), "twice"),
    Case("a path out of the folder", _sharded(index(a="../secret.safetensors")), "plain name"),
    Case("an absolute path", _sharded(index(a="/etc/passwd")), "plain name"),
    Case("a hidden file", _sharded(index(a=".git.safetensors")), "plain name"),
    Case("a file with a null byte", _sharded(index(a="a\0.safetensors")), "plain name"),
    Case("a pickle among the shards", _sharded(index(a="pytorch_model.bin")), "not a .safetensors"),
    Case("a file that prints badly", _sharded(index(a=f"{BAD_NAME}.safetensors")), "missing"),
    Case("a file that is a number", _sharded(index(a=7)), "must name a file"),
    Case(
        "100,000 shards",
        _sharded(index(**{str(n): f"{n}.safetensors" for n in range(100_000)})),
        "names 100002 files",
    ),
    Case("a shard that is missing", _sharded(index(a="model-3.safetensors")), "missing"),
    Case("a shard that is a link out", _sharded(index(), **{SECOND: _outside}), "leads out of"),
    Case("a shard that is a folder", _sharded(index(), **{SECOND: os.mkdir}), "not a regular file"),
    Case("a shard that is a pipe", _sharded(index(), **{SECOND: os.mkfifo}), "not a regular file"),
    Case(
        "a shard of a terabyte",
        _sharded(index(), **{SECOND: _sparse(SHARDS[SECOND], 2**40)}),
        MISFIT,
    ),
    Case("a tensor in the wrong shard", _sharded(index(**{_MOVED: SECOND})), "fit the index"),
    Case("a tensor in two shards", _second(**{_MOVED: torch.zeros(2)}), "fit the index"),
    Case("a tensor that is nowhere", _sharded(index(a=SECOND)), "fit the index"),
    Case("NaN in the second shard", _second(**{"3.bias": torch.full((3,), torch.nan)}), "NaN"),
    Case("a shape in the second shard", _second(**{"3.bias": torch.zeros(4)}), MISFIT),
]


@cache
def _good() -> tuple[dict[str, Any], bytes]:
    """Configuration and weights of a good folder, which is read once: imports take seconds."""
    from tests.hub.makers import write_folder

    with tempfile.TemporaryDirectory() as place:
        folder = write_folder(Path(place, "good"), "resnet")
        resolve_folder(folder)
        weights = (folder / "model.safetensors").read_bytes()
        return json.loads((folder / CONFIG).read_text()), weights


def resolve_folder(folder: Path) -> Suspect:
    return resolve(Request(str(folder)))


def _hub(config: Content | None = None, **changes: Any) -> Callable[[Path], Path]:
    """A folder whose configuration is replaced, or whose keys are."""
    files = {name: changes.pop(name) for name in list(changes) if "." in name}

    def make(place: Path) -> Path:
        held, weights = _good()
        new = json.dumps(held | changes).encode() if config is None else config
        return _folder({CONFIG: new, "model.safetensors": weights, **files})(place)

    return make


def _processor(content: Content) -> Callable[[Path], Path]:
    return _hub(**{PREPROCESSOR: content})


_AUTO = {"AutoConfig": "modeling.Config", "AutoModelForImageClassification": "modeling.Model"}
_RUNS = b"import os\nos.system('touch mark')\n"
_LABELS = {str(number): f"{number}" for number in range(100_001)}

HUB_FOLDERS = [
    Case("a configuration that is a pipe", _hub(os.mkfifo), "not a regular file"),
    Case("a configuration that is a device", _hub(_link("/dev/zero")), "leads out of"),
    Case("a configuration that is a folder", _hub(os.mkdir), "not a regular file"),
    Case("a configuration that is empty", _hub(b""), "not usable JSON"),
    Case("a configuration 60,000 brackets deep", _hub(b'{"a":' * 60_000), "nested too deeply"),
    Case("a configuration of small objects", _hub(b'{"a":[' + b"{}," * 10**6 + b"0]}"), ""),
    Case("a configuration of a terabyte", _hub(_sparse(b"{", 2**40)), "longer than"),
    Case("an architecture twice", _hub(b'{"architectures": [], "architectures": []}'), "twice"),
    Case("an integer of 10,000 digits", _hub(b'{"a": ' + b"9" * 10_000 + b"}"), "digits"),
    Case("an unknown model", _hub(model_type="../../theirs"), "no model_type"),
    Case("a model that is a list", _hub(model_type=["resnet"]), "no model_type"),
    Case("another model", _hub(model_type="vit"), "far more|transformers has no"),
    Case("a billion layers", _hub(depths=[10**9] * 4), "more than 4096"),
    Case("many layers", _hub(depths=[4096] * 4), "far more"),
    Case("a billion classes", _hub(num_labels=10**9, id2label=None), "more than 100000"),
    Case("a name for 100,001 classes", _hub(id2label=_LABELS), ""),
    Case("wide layers", _hub(hidden_sizes=[2**20] * 4), "far more"),
    Case("a width of 10^30", _hub(embedding_size=10**30), "more than"),
    Case("a width below zero", _hub(embedding_size=-8), "cannot be"),
    Case("a width that is a text", _hub(embedding_size=BAD_NAME), "cannot be"),
    Case("an activation that is code", _hub(hidden_act="os.system"), "cannot be"),
    Case("a class that prints badly", _hub(id2label={"0": BAD_NAME, "1": "b", "2": "c"}), "print"),
    Case("a class too many", _hub(id2label={str(n): f"{n}" for n in range(4)}), "does not fit"),
    Case("quantised weights", _hub(quantization_config={"quant_method": BAD_NAME}), "quantised"),
    Case(
        "a model in code",
        _hub(model_type="theirs", auto_map=_AUTO, **{"modeling.py": _RUNS}),
        "which is never run",
    ),
    Case(
        "a class in code",
        _hub(architectures=["XForImageClassification"], **{"modeling.py": _RUNS}),
        "which is never run",
    ),
    Case("code beside a model", _hub(auto_map=_AUTO, **{"modeling.py": _RUNS}), LOADS),
    Case("a kernel of somebody", _hub(attn_implementation="evil/kernel", use_kernels=True), LOADS),
    Case("a processor that is a pipe", _processor(os.mkfifo), "not a regular file"),
    Case("a processor that is a link", _processor(_link("/etc/passwd")), "leads out of"),
    Case("a processor of NaN", _processor(b'{"image_mean": [NaN, 0, 0]}'), "NaN"),
    Case("a std of zero", _processor(b'{"image_std": [0, 1, 1]}'), "image_std"),
    Case("images of 10^9 pixels", _processor(b'{"size": 1000000000}'), "size must be"),
    Case("a crop to nothing", _processor(b'{"size": {"shortest_edge": 0}}'), "size must be"),
    Case("a size that is deep", _processor(b'{"size": ' + b"[" * 60_000), "nested too deeply"),
]
if find_spec("transformers") is None:
    HUB_FOLDERS = []
