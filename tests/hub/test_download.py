# SPDX-License-Identifier: Apache-2.0
"""Models of the hub: the cache first, known files only, one line without a connection."""

import fnmatch

import pytest

from d3fast.hub.download import cached, downloaded

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra d3fast[hub]")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    fetch = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: fetch(*a, cache_dir=tmp_path, **k)
    )
    return tmp_path


def fill(cache, *names, revision="main"):
    """Lay out a snapshot as the hub's library does."""
    folder = cache / "models--org--name"
    snapshot = folder / "snapshots" / COMMIT
    for path in (folder / "blobs", folder / "refs", snapshot):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(COMMIT)
    for name in names:
        (folder / "blobs" / name).write_text("{}")
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    return snapshot


class Hub:
    """A hub that can be reached: downloads make empty files in a folder."""

    def __init__(self, folder, *files):
        self.folder, self.files, self.calls = folder, files, []

    def __call__(self, name, revision=None, local_files_only=False, allow_patterns=None):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        self.calls.append((name, revision))
        for file in self.files:
            if any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns):
                (self.folder / file).touch()
        return str(self.folder)


@pytest.mark.parametrize("model", ["hf://org/name", f"hf://org/name@{COMMIT}", "hf://org/name@v1"])
def test_a_snapshot_in_the_cache_is_used_without_the_network(cache, model):
    snapshot = fill(cache, "config.json", "model.safetensors", revision="main")
    fill(cache, revision="v1")
    assert downloaded(model) == snapshot
    assert cached(model.removeprefix("hf://")) == snapshot


def test_a_snapshot_without_weights_is_not_enough(cache):
    fill(cache, "config.json")
    assert cached("org/name") is None


@pytest.mark.parametrize("name", ["name", "a/b/c", "../x", "/abs/path", "org/", "org/na me", "./a"])
def test_other_names_are_not_looked_up(name):
    assert cached(name) is None


@pytest.mark.parametrize("name", ["", "name", "org/name/more", "../../etc", "org/name@"])
def test_a_malformed_name_is_refused(name):
    with pytest.raises(ValueError, match="must have the form hf://org/name"):
        downloaded(f"hf://{name}")


def test_known_files_are_downloaded_and_no_code(tmp_path, monkeypatch):
    safe = ("config.json", "tokenizer.json", "model.safetensors")
    hub = Hub(tmp_path, *safe, "modeling_theirs.py", "pytorch_model.bin", "training_args.bin")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert downloaded("hf://org/name@v1") == tmp_path
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(safe)
    assert hub.calls == [("org/name", "v1")]


def test_pickles_are_downloaded_where_there_is_nothing_else(tmp_path, monkeypatch):
    hub = Hub(tmp_path, "config.json", "pytorch_model.bin", "training_args.bin")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    downloaded("hf://org/name")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "pytorch_model.bin"]


def test_a_repository_without_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(tmp_path, "config.json"))
    with pytest.raises(ValueError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        downloaded("hf://org/name")


def test_without_a_connection_the_error_is_one_line_that_says_what_to_do(cache, monkeypatch):
    fetch = huggingface_hub.snapshot_download

    def offline(*arguments, local_files_only=False, **options):
        if not local_files_only:
            raise ConnectionError("cannot resolve\nthe host")
        return fetch(*arguments, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ValueError, match="cannot be downloaded: cannot resolve the host") as caught:
        downloaded("hf://org/name")
    assert "copy the folder here" in str(caught.value)
    assert "\n" not in str(caught.value)
