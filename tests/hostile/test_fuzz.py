"""Good files with bytes changed, taken out, put in or swapped: what is read is valid, or one line.

The same 150 examples every time. ``HOSTILE_EXAMPLES`` asks for more, which are slow; from 10,000 on
they differ on every run.
"""

import gzip
import io
import json
import os
import pickle
import pickletools
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from d3fast.attacks import ATTACKS, load_attack, save_attack
from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.verdict import audit_verdict
from d3fast.hub import Request, open_samples
from d3fast.hub.folders import HubFolder
from d3fast.hub.image_processor import image_input
from d3fast.io.hub_files import find_weights, load_weight_files
from d3fast.io.idx import read_idx
from d3fast.io.images import Fit, read_image
from d3fast.io.plain_pickle import read_plain_pickle
from d3fast.models import load_weights
from d3fast.results.store import Results, read_results
from tests.audit.report.documents import ROWS
from tests.hostile.arrays import npz_file
from tests.hostile.audits import document
from tests.hostile.documents import results
from tests.hostile.files import forged_zip
from tests.hostile.hubs import SHARDS, index
from tests.hostile.images import encoded
from tests.hostile.models import net, state, torch_file
from tests.hostile.onnx import resolve_onnx
from tests.hostile.samples import COLUMNAR, SAMPLES_TAR, columnar
from tests.hostile.triggers import trigger
from tests.hub.suspects import read_samples
from tests.io.onnx_files import classifier

MANY = int(os.environ.get("HOSTILE_EXAMPLES", "0"))
fuzz = settings(max_examples=MANY or 150, derandomize=MANY < 10_000)
pytestmark = [pytest.mark.slow] if MANY else []
# Numbers that formats count with, at the edges of what they can hold.
_EDGES = [struct.pack("<q", n) for n in (0, 1, -1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)]
_EDGES += [struct.pack(">I", n) for n in (0, 1, 2**31, 2**32 - 1)]
_PLACE = st.floats(0, 1, exclude_max=True)


@st.composite
def changed(draw, files):
    """One of the files after a few changes, seldom many."""
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 5))):
        at = int(draw(_PLACE) * len(content))
        kind = draw(st.sampled_from(["flip", "put", "edge", "cut", "end", "splice"]))
        if kind == "flip" and content:
            content[at] ^= draw(st.integers(1, 255))
        elif kind == "put":
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "edge":
            edge = draw(st.sampled_from(_EDGES))[: draw(st.sampled_from([1, 2, 4, 8]))]
            content[at : at + len(edge)] = edge
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "end":
            del content[at:]
        else:
            other = draw(st.sampled_from(files))
            start = int(draw(_PLACE) * len(other))
            content[at : at + 32] = other[start : start + 32]
    return bytes(content)


def loads_or_one_line(loader, path, content):
    """What a loader made of a file; ``None`` if it was refused as it should be."""
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return loader(path)
    except (ValueError, OSError) as error:
        line = str(error)
    assert line.isprintable()
    assert len(line) < 1000
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def _valid(path):
    """Load, and say whether the model is whole: changed everywhere or nowhere, and finite."""
    model, old = net(), net().state_dict()
    try:
        load_weights(model, path)
    except (ValueError, OSError):
        assert all(torch.equal(old[n], v) for n, v in model.state_dict().items())
        raise
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    return model


_HALF = {n: v.half() if v.is_floating_point() else v for n, v in state().items()}
_TRAINING = {"state_dict": state(), "optimizer": {"state": {0: state()}, "lr": 0.1}, "epoch": 3}
SAFETENSORS = [save(state()), save(_HALF), save(state(), {"made": "by"})]
ZIPPED = [torch_file(state()), torch_file(_TRAINING), torch_file(_HALF, pickle_protocol=4)]
LEGACY = [
    torch_file(held, _use_new_zipfile_serialization=False) for held in (state(), _TRAINING, _HALF)
]


@fuzz
@given(content=changed(SAFETENSORS))
def test_safetensors(folder, content):
    loads_or_one_line(_valid, folder / "w.safetensors", content)


@fuzz
@given(content=changed(ZIPPED))
def test_files_of_torch(folder, content):
    loads_or_one_line(_valid, folder / "w.pt", content)


@fuzz
@given(content=changed([classifier(), classifier(batch=1)]))
def test_onnx_files(folder, content):
    suspect = loads_or_one_line(resolve_onnx, folder / "w.onnx", content)
    assert (
        suspect is None
        or suspect.model(torch.rand(2, suspect.input.channels, *suspect.input.size)).ndim == 2
    )


@fuzz
@given(content=changed(LEGACY))
def test_legacy_files_of_torch(folder, content):
    loads_or_one_line(_valid, folder / "w.pth", content)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A folder with two shards, to write indexes into."""
    place = tmp_path_factory.mktemp("shards")
    for name, content in SHARDS.items():
        (place / name).write_bytes(content)
    return place


@fuzz
@given(content=changed([index(), index(a="model-3.safetensors")]))
def test_indexes_of_shards(shards, content):
    def fill(path):
        model = net()
        load_weight_files(model, find_weights(path.parent))
        return model

    model = loads_or_one_line(fill, shards / "model.safetensors.index.json", content)
    assert model is None or torch.equal(model[3].bias, net(1)[3].bias)


_PROCESSORS = [
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 8}, "crop_size": 4},
    {"size": {"height": 8, "width": 9}, "image_mean": [0.5, 0, 1], "image_std": [1, 2, 3]},
    {"image_processor_type": "ConvNextImageProcessor", "size": 8, "rescale_factor": 0.0039},
]


@fuzz
@given(content=changed([json.dumps(settings).encode() for settings in _PROCESSORS]))
def test_preprocessing(folder, content):
    def read(path):
        return image_input(HubFolder(path.parent, "a", "a", {}), Request("a"))

    found = loads_or_one_line(read, folder / "preprocessor_config.json", content)
    assert found is None or all(value > 0 for value in found.input.std or ())


def _pickles_of(files):
    """The pickles within zip archives."""
    for content in files:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            yield archive.read(name)


@fuzz
@given(pickled=changed(list(_pickles_of(ZIPPED))))
def test_pickles_in_files_of_torch(folder, pickled):
    members = [("w/data.pkl", pickled), *((f"w/data/{n}", bytes(100)) for n in range(20))]
    loads_or_one_line(_valid, folder / "p.pt", forged_zip(members))


_OPCODES = [op.code.encode("latin-1") for op in pickletools.opcodes]


@fuzz
@given(st.lists(st.one_of(st.sampled_from(_OPCODES), st.binary(max_size=3)), max_size=40))
def test_any_instructions(folder, codes):
    pickled = b"\x80\x02}" + b"".join(codes) + b"."
    loads_or_one_line(_valid, folder / "i.pt", forged_zip([("w/data.pkl", pickled)]))


@fuzz
@given(content=changed([npz_file(), npz_file(packed=True), npz_file(images=np.zeros((10, 4, 4)))]))
def test_arrays(folder, content):
    data = loads_or_one_line(read_samples, folder / "w.npz", content)
    assert data is None or 0 < len(data) <= 2**20


@fuzz
@given(content=changed([encoded(kind, (16, 16)) for kind in ("PNG", "JPEG", "BMP", "PPM", "WEBP")]))
def test_pictures(folder, content):
    image = loads_or_one_line(lambda path: read_image(path, fit=Fit((8, 8))), folder / "w", content)
    assert image is None or image.shape in ((1, 8, 8), (3, 8, 8))


_TABLES = {
    ".csv": [b'text,label\n"a, b",pos\nc,neg\n', b"a;text\r\n1;b\r\n"],
    ".json": [b'{"text": "a", "label": 1}\n' * 3, b'[{"text": "b", "label": "c"}, {"text": ""}]'],
    ".tar": [SAMPLES_TAR],
    ".zip": [forged_zip([("cat/a.png", encoded()), ("dog/a.png", encoded())])],
}


@pytest.mark.parametrize("suffix", _TABLES)
@fuzz
@given(data=st.data())
def test_tables(folder, suffix, data):
    content = data.draw(changed(_TABLES[suffix]))
    samples = loads_or_one_line(open_samples, folder / f"w{suffix}", content)
    assert samples is None or 0 < len(samples.records) <= 100


@pytest.mark.skipif(not COLUMNAR, reason="needs the extra d3fast[tables]")
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@settings(max_examples=MANY // 20 or 4, deadline=None, derandomize=MANY < 10_000)  # a process each
@given(data=st.data())
def test_columnar_tables(folder, suffix, data):
    content = data.draw(changed(columnar(suffix)))
    samples = loads_or_one_line(open_samples, folder / f"w{suffix}", content)
    assert samples is None or 0 < len(samples.records) <= 2**20


_IDX = b"\0\0\x08\3" + struct.pack(">3I", 5, 4, 3) + bytes(range(60))


@fuzz
@given(content=changed([_IDX, gzip.compress(_IDX, mtime=0), b"\0\0\x08\1\0\0\0\4\1\2\3\4"]))
def test_idx(folder, content):
    values = loads_or_one_line(read_idx, folder / "w", content)
    assert values is None or 0 < values.numel() <= len(content) * 1000


_BATCH = {b"data": np.zeros((2, 12), np.uint8), b"labels": [0, 1]}


@fuzz
@given(content=changed([pickle.dumps(_BATCH, protocol) for protocol in (2, 4)]))
def test_plain_pickles(folder, content):
    loads_or_one_line(lambda path: read_plain_pickle(path.read_bytes()), folder / "b", content)


@fuzz
@given(content=changed([results(), results(rows=[{"kind": "epoch", "loss": [1e-3, 2]}] * 3)]))
def test_results(folder, content):
    document = loads_or_one_line(read_results, folder / "w.json", content)
    if document is not None:  # what was read can be written
        Results(**document.__dict__).write(folder / "again.json")


_AUDITS = {
    name: [document(name), document(name, [row for row in rows() if row["kind"] == "model"])]
    for name, rows in ROWS.items()
}


@pytest.mark.parametrize("name", ROWS)
@fuzz
@given(data=st.data())
def test_audits(folder, name, data):
    content = data.draw(changed(_AUDITS[name]))
    (folder / name).mkdir(exist_ok=True)
    path = folder / name / f"{name}.json"
    audit = loads_or_one_line(lambda path: read_audit(path.parent), path, content)
    assert audit is None or audit_verdict(audit).headline.isprintable()


def _triggers():
    """A saved attack of every kind; those that learn, with what they learned."""
    yield from (trigger(name) for name in ATTACKS)
    attack = ATTACKS["ssba"](target=1, width=1)
    attack._learned["networks"] = attack._networks(1)
    yield save(attack.state_dict(), _metadata("ssba", width=1))
    pattern = {"pattern": torch.full((1, 4, 4), 0.1)}
    yield save(pattern, _metadata("low-frequency"))
    yield save({"pattern": pattern["pattern"] / 2}, _metadata("narcissus"))


def _metadata(name, **options):
    options = str({"target": 1, **options}).replace("'", '"')
    return {"format": "d3fast.attack/1", "attack": name, "options": options}


@fuzz
@given(content=changed(list(_triggers())))
def test_triggers(folder, content):
    attack = loads_or_one_line(load_attack, folder / "t.safetensors", content)
    if attack is None or (hasattr(attack, "learned") and not attack.learned):
        return
    images = torch.rand(2, 1, 8, 8)
    try:
        stamped = attack.trigger(images)
    except ValueError:  # of another size than these
        return
    assert stamped.shape == images.shape
    name = next(n for n, kind in ATTACKS.items() if kind is type(attack))
    save_attack(attack, folder / "again", name)
