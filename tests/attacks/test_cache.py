"""Learned triggers in files: found again, and never believed blindly."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from safetensors.torch import save_file

from d3fast.attacks import BadNets, cache
from d3fast.attacks.cache import ensure_learned
from d3fast.attacks.files import save_attack
from d3fast.data import ImageData


@dataclass(frozen=True)
class Counted:
    """Learns the mean image, and counts how often it did."""

    target: int = 1
    factor: float = 1.0
    mapping: str = "all-to-one"
    tensors: dict = field(default_factory=dict, init=False, compare=False)
    calls: list = field(default_factory=list, init=False, compare=False)

    @property
    def learned(self):
        return bool(self.tensors)

    def learn(self, data, *, seed=0, device=None, progress=True):
        self.calls.append((seed, device, progress))
        self.tensors["mean"] = self.factor * data.images.float().mean(dim=0) + seed

    def trigger(self, images):
        return self.tensors["mean"].expand_as(images)

    def poison(self, dataset, ratio, target=None, generator=None):
        raise NotImplementedError

    def state_dict(self):
        return dict(self.tensors)

    def load_state_dict(self, state):
        if state and set(state) != {"mean"}:
            raise ValueError(f"learns the tensor mean, got {', '.join(state)}")
        self.tensors.update(state)


def _data(seed=0, count=8):
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=rng)
    return ImageData(images, torch.arange(count) % 2, ("a", "b"))


def _ensured(folder, attack=None, data=None, seed=0, name="counted"):
    attack = attack or Counted()
    ensure_learned(attack, name, data or _data(), folder=folder, seed=seed, progress=False)
    return attack


def test_what_was_learned_once_is_read_back(tmp_path):
    first, second = _ensured(tmp_path / "made" / "here"), _ensured(tmp_path / "made" / "here")
    assert first.calls == [(0, None, False)]
    assert second.calls == []
    assert torch.equal(first.tensors["mean"], second.tensors["mean"])
    (file,) = (tmp_path / "made" / "here").iterdir()
    assert file.name.startswith("counted-")
    assert file.suffix == ".safetensors"


@pytest.mark.parametrize(
    "other",
    [
        {"attack": Counted(factor=2.0)},
        {"seed": 1},
        {"data": _data(seed=1)},
        {"data": _data(count=7)},
        {"data": replace(_data(), labels=1 - _data().labels)},
        {"data": replace(_data(), images=_data().images.reshape(8, 1, 2, 8))},
        {"data": replace(_data(), images=_data().images / 255)},
        {"data": replace(_data(), classes=("a", "b", "c"))},
        {"name": "other"},
    ],
    ids=["options", "seed", "images", "count", "labels", "shape", "dtype", "classes", "name"],
)
def test_anything_else_that_learning_depends_on_is_learned_anew(tmp_path, other):
    _ensured(tmp_path)
    if "attack" in other:
        other = {"attack": replace(other["attack"])}
    assert len(_ensured(tmp_path, **other).calls) == 1
    assert len(list(tmp_path.iterdir())) == 2
    assert _ensured(tmp_path).calls == []


def _of_other_options(path):
    attack = Counted(factor=3.0)
    attack.tensors["mean"] = torch.ones(1, 4, 4)
    save_attack(attack, path, "counted")


def _of_another_name(path):
    attack = Counted()
    attack.tensors["mean"] = torch.ones(1, 4, 4)
    save_attack(attack, path, "someone")


def _wrong_tensors(path):
    attack = Counted()
    attack.tensors["median"] = torch.ones(1, 4, 4)
    save_attack(attack, path, "counted")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: save_file({"mean": torch.ones(1, 4, 4)}, path),
        lambda path: save_attack(Counted(), path, "counted"),
        _of_other_options,
        _of_another_name,
        _wrong_tensors,
    ],
    ids=["empty", "cut", "no attack", "unlearned", "options", "name", "tensors"],
)
def test_a_file_that_holds_something_else_is_replaced(tmp_path, damage):
    mean = _ensured(tmp_path).tensors["mean"]
    (file,) = tmp_path.iterdir()
    damage(file)
    again = _ensured(tmp_path)
    assert len(again.calls) == 1
    assert torch.equal(again.tensors["mean"], mean)
    assert _ensured(tmp_path).calls == []
    assert list(tmp_path.iterdir()) == [file]


def test_without_a_folder_it_is_learned_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(_ensured(None).calls) == 1
    assert list(tmp_path.iterdir()) == []


def test_attacks_that_have_learned_or_never_do_are_left_alone(tmp_path):
    attack = _ensured(tmp_path)
    _ensured(tmp_path, attack, seed=5)
    assert len(attack.calls) == 1
    _ensured(tmp_path, BadNets(1), name="badnets")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_the_folders_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="a file is in the way"):
        _ensured(tmp_path / "file")


def test_another_version_of_an_attacks_package_learns_again(tmp_path, monkeypatch):
    learner = Counted()
    ensure_learned(learner, "mine:Counted", _data(), folder=tmp_path)
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["mine.Counted"]
    monkeypatch.setattr(cache, "origin", lambda spec: "other 2.0")
    again = Counted()
    ensure_learned(again, "mine:Counted", _data(), folder=tmp_path)
    assert len(again.calls) == 1
