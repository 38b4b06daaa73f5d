"""A repair that was cut off goes on, and comes out with the bits of one that was not."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from d3fast.data import Augment, Augmented, ImageData
from d3fast.detox import Checkpointing, D3Config, detoxify, weights_so_far
from d3fast.detox.samples import Unlabelled
from d3fast.runtime.seeding import generator
from d3fast.training.loop import fit

CONFIGS = {
    "default": D3Config(epochs=6),
    "schedules": D3Config(epochs=6, schedule="cosine", distance_schedule="linear"),
    "dual ascent": D3Config(epochs=6, dual_step=5.0, margin=0.1, distance_schedule="cosine"),
    "recovery": D3Config(
        epochs=3, max_acc_drop=0.0, recovery=3, clean_weight=0.0, distillation=0.0
    ),
    "conv+linear": D3Config(epochs=6, track="conv+linear", momentum=0.5, backend="reference"),
    "no constraint": D3Config(epochs=6, constraint=None, track="all", lr=0.001),
}


class Cut(Exception):
    """Somebody pulled the plug."""


@pytest.fixture
def suspect(samples):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4 * 16, 3),
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    fit(
        model,
        samples.batches(16),
        nn.CrossEntropyLoss(),
        optimizer,
        epochs=20,
        device=torch.device("cpu"),
        progress=False,
    )
    return model


@pytest.fixture
def samples():
    draws = torch.Generator().manual_seed(1)
    images = torch.rand(48, 1, 6, 6, generator=draws)
    labels = (3 * images.mean(dim=(1, 2, 3)) * 1.9).long().clamp(0, 2)
    return ImageData(images, labels, ("a", "b", "c"))


def repair(suspect, samples, config, path=None, resume=False, cut_after=None, more=None):
    """One repair, with loaders as the command line makes them; ``more``: unlabelled samples."""
    order, draws, others = (generator(0, use) for use in ("order", "augment", "unlabelled"))
    loader = Augmented(samples.batches(16, order), Augment(crop=1), draws)

    def cut(epoch, _):
        if epoch.epoch == cut_after:
            raise Cut

    keep = Checkpointing(path, resume, (order, draws, others)) if path else None
    return detoxify(
        suspect,
        loader,
        config,
        samples.batches(48),
        progress=False,
        on_epoch=cut,
        checkpointing=keep,
        unlabelled=None if more is None else Unlabelled(more, 8, Augment(crop=1), others),
    )


@pytest.mark.parametrize("cut_after", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("name", CONFIGS)
def test_resuming_gives_the_same_bits(suspect, samples, tmp_path, name, cut_after):
    config, path = CONFIGS[name], tmp_path / "resume.pt"
    whole = repair(suspect, samples, config)
    assert len(whole.history) == 6
    with pytest.raises(Cut):
        repair(suspect, samples, config, path, cut_after=cut_after)
    if cut_after == 1:  # nothing was finished
        assert not path.exists()
        return
    torch.rand(7)  # the global generator has moved since
    resumed = repair(suspect, samples, config, path, resume=True)
    assert resumed.history == whole.history
    assert resumed.clean_weights == whole.clean_weights
    assert (resumed.pushed, resumed.acc_drop) == (whole.pushed, whole.acc_drop)
    state = whole.model.state_dict()
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("name", ["default", "recovery"])
def test_resuming_draws_the_same_unlabelled_samples(suspect, samples, tmp_path, name):
    config, path = replace(CONFIGS[name], distillation=0.5), tmp_path / "resume.pt"
    whole = repair(suspect, samples, config, more=samples)
    with pytest.raises(Cut):
        repair(suspect, samples, config, path, cut_after=5, more=samples)
    resumed = repair(suspect, samples, config, path, resume=True, more=samples)
    assert resumed.history == whole.history


def test_writing_the_state_changes_nothing(suspect, samples, tmp_path):
    plain = repair(suspect, samples, CONFIGS["default"])
    kept = repair(suspect, samples, CONFIGS["default"], tmp_path / "resume.pt")
    for one, other in zip(plain.model.parameters(), kept.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_was_reached_can_be_used(suspect, samples, tmp_path):
    path = tmp_path / "resume.pt"
    with pytest.raises(Cut):
        repair(suspect, samples, D3Config(epochs=6, averaging=0.0), path, cut_after=4)
    short = repair(suspect, samples, D3Config(epochs=3, averaging=0.0))
    assert weights_so_far(path, suspect) == 3
    for one, other in zip(suspect.parameters(), short.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("change", ["weights", "options", "samples"])
def test_the_state_of_another_repair_is_refused(suspect, samples, tmp_path, change):
    path, config = tmp_path / "resume.pt", D3Config(epochs=3)
    keep = Checkpointing(path, identity="samples")
    loader = samples.batches(16)
    detoxify(suspect, loader, config, progress=False, checkpointing=keep)
    if change == "weights":
        nn.init.zeros_(suspect[0].bias)
    elif change == "options":
        config = D3Config(epochs=4)
    keep = Checkpointing(path, True, identity="others" if change == "samples" else "samples")
    with pytest.raises(ValueError, match="belongs to another repair"):
        detoxify(suspect, loader, config, progress=False, checkpointing=keep)


@pytest.mark.parametrize(
    ("content", "error_text"),
    [(None, "nothing to resume"), (b"", "damaged"), (b"PK\x03\x04 not", "damaged")],
)
def test_a_file_that_is_no_state_is_refused(suspect, samples, tmp_path, content, error_text):
    path = tmp_path / "resume.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=error_text):
        repair(suspect, samples, D3Config(epochs=2), path, resume=True)


def test_a_torch_file_of_something_else_is_refused(suspect, samples, tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "resume.pt")
    with pytest.raises(ValueError, match="no state of a repair"):
        repair(suspect, samples, D3Config(epochs=2), tmp_path / "resume.pt", resume=True)
