"""The one training loop: what it does, records and refuses."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from d3fast.training.loop import check_weights, fit

CPU = torch.device("cpu")


def _batches(sizes=(6, 4), classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(n, 1, 2, 2, generator=draw), torch.randint(0, classes, (n,), generator=draw))
        for n in sizes
    ]


def _model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def _fit(model, loader, lr=0.1, **options):
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr)
    options = {"epochs": 1, "device": CPU, "progress": False, **options}
    return fit(model, loader, nn.CrossEntropyLoss(), optimizer, **options)


def test_it_trains_like_a_loop_written_by_hand():
    model, twin = _model(), _model()
    _fit(model, _batches(), epochs=3)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    for _ in range(3):
        for inputs, labels in _batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(twin(inputs), labels).backward()
            optimizer.step()
    for (name, mine), theirs in zip(
        model.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name


def test_gradients_are_clipped_to_the_norm_that_is_asked_for():
    model, twin = _model(), _model()
    _fit(model, _batches(), max_grad_norm=0.01)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    twin.train()
    for images, labels in _batches():
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(twin(images), labels).backward()
        norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in twin.parameters()]))
        assert norm > 0.01
        for p in twin.parameters():
            p.grad *= 0.01 / norm
        optimizer.step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_gradients_below_that_norm_are_left_alone():
    model, twin = _model(), _model()
    _fit(model, _batches(), max_grad_norm=1e6)
    _fit(twin, _batches())
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )


def test_the_record_is_what_the_batches_had_to_say():
    model, twin = _model(), _model()
    (epoch,) = _fit(model, _batches(), lr=0.5)
    losses, hits = [], 0
    optimizer = torch.optim.SGD(twin.parameters(), 0.5)
    for inputs, labels in _batches():
        optimizer.zero_grad()
        scores = twin(inputs)
        loss = nn.functional.cross_entropy(scores, labels)
        losses.append(loss.item() * len(labels))
        hits += int((scores.argmax(1) == labels).sum())
        loss.backward()
        optimizer.step()
    assert epoch.epoch == 1
    assert epoch.loss == pytest.approx(sum(losses) / 10)
    assert epoch.accuracy == hits / 10
    assert (epoch.lr, epoch.distance, epoch.val_accuracy) == (0.5, None, None)


def test_the_record_as_a_dict_has_its_fields():
    (epoch,) = _fit(_model(), _batches())
    assert list(epoch.as_dict()) == ["epoch", "loss", "accuracy", "lr", "distance", "val_accuracy"]


def test_batch_norm_is_in_train_mode_while_training_and_in_eval_mode_afterwards():
    model = _model().eval()
    modes = []
    model[2].register_forward_hook(lambda module, *_: modes.append(module.training))
    before = model[2].running_mean.clone()
    _fit(model, _batches(), val_loader=_batches((2,)))
    assert modes == [True, True, False]
    assert not any(module.training for module in model.modules())
    assert model[2].num_batches_tracked == 2
    assert not torch.equal(model[2].running_mean, before)


def test_the_scheduler_moves_once_per_epoch_and_the_rate_used_is_recorded():
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), 0.8)
    history = _fit(
        model, _batches(), epochs=3, optimizer=optimizer, scheduler=StepLR(optimizer, 1, 0.5)
    )
    assert [epoch.lr for epoch in history] == [0.8, 0.4, 0.2]
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_held_out_accuracy_and_distance_are_recorded_after_the_epoch():
    model = _model()
    start = model[3].weight.detach().clone()
    held_out = _batches((5, 4), seed=1)
    seen = []

    def look(epoch, trained):
        right = sum(int((trained(x).argmax(1) == y).sum()) for x, y in held_out)
        seen.append((right / 9, (trained[3].weight - start).norm().item()))

    history = _fit(
        model,
        _batches(),
        epochs=3,
        lr=1.0,
        val_loader=held_out,
        on_epoch=look,
        distance=lambda: (model[3].weight.detach() - start).norm(),
    )
    assert [(e.val_accuracy, e.distance) for e in history] == [pytest.approx(s) for s in seen]
    assert seen[0][1] > 0


def test_held_out_data_changes_nothing():
    model, twin = _model(), _model()
    _fit(model, _batches(), epochs=2, val_loader=_batches((5,), seed=1))
    _fit(twin, _batches(), epochs=2)
    pairs = zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_on_epoch_sees_every_record_and_a_model_in_eval_mode():
    seen = []
    model = _model()
    history = _fit(
        model, _batches(), epochs=2, on_epoch=lambda e, m: seen.append((e, m, m.training))
    )
    assert seen == [(epoch, model, False) for epoch in history]


def test_no_gradients_are_left_behind():
    model = _model()
    _fit(model, _batches())
    assert all(p.grad is None for p in model.parameters())


def test_it_trains_inside_no_grad_too():
    model = _model()
    before = model[3].weight.clone()
    with torch.no_grad():
        _fit(model, _batches())
    assert not torch.equal(model[3].weight, before)


def test_batches_without_samples_are_passed_over():
    model, twin = _model(), _model()
    empty = (torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.long))
    assert _fit(model, [empty, *_batches()]) == _fit(twin, _batches())


def test_no_step_reads_a_value_back_from_the_device(monkeypatch):
    """On the CPU nothing waits, but reading values out of tensors can be counted."""
    reads, reads_at_batch = [], []
    for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__", "__index__"):
        original = getattr(torch.Tensor, name)

        def counted(tensor, original=original):
            reads.append(tensor)
            return original(tensor)

        monkeypatch.setattr(torch.Tensor, name, counted)

    def loader():
        for batch in _batches((4,) * 5):
            reads_at_batch.append(len(reads))
            yield batch

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    _fit(model, loader())
    assert reads_at_batch == [0] * 5
    assert reads


def _with(batch, **changes):
    """Two good batches and a third that is changed: ``inputs`` or ``labels`` at one place."""
    batches = _batches((4, 4, 4))
    if "inputs" in changes:
        batches[batch - 1][0][1, 0, 0, 1] = changes["inputs"]
    if "labels" in changes:
        batches[batch - 1][1][2] = changes["labels"]
    return batches


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [1, 3])
def test_nan_and_inf_in_the_data_are_reported_with_their_batch(value, batch):
    with pytest.raises(
        ValueError, match=f"^clean_loader holds NaN or inf in batch {batch} of epoch 1$"
    ):
        _fit(_model(), _with(batch, inputs=value))


@pytest.mark.parametrize("label", [-1, 3, -100, 2**40])
def test_labels_out_of_range_are_reported_with_value_batch_and_range(label):
    with pytest.raises(
        ValueError,
        match=rf"^clean_loader holds label {label} in batch 2 of epoch 1, .* classes 0\.\.2$",
    ):
        _fit(_model(), _with(2, labels=label))


def test_data_that_goes_bad_later_is_reported_with_its_epoch():
    class Rotting:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(_with(1, inputs=torch.nan) if self.passes == 3 else _batches())

    with pytest.raises(ValueError, match="NaN or inf in batch 1 of epoch 3"):
        _fit(_model(), Rotting(), epochs=5)


@pytest.mark.parametrize(
    "loader", [[], [(torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.long))]]
)
def test_a_loader_that_yields_nothing_is_refused_by_name(loader):
    with pytest.raises(ValueError, match=r"^the training data yields nothing"):
        _fit(_model(), loader, name="the training data")


def test_a_generator_that_ends_after_the_first_epoch_is_explained():
    generator = (batch for batch in _batches())
    with pytest.raises(ValueError, match=r"clean_loader yields nothing; a generator .* only once"):
        _fit(_model(), generator, epochs=2)


def test_a_generator_is_enough_for_one_epoch():
    assert len(_fit(_model(), (batch for batch in _batches()))) == 1


@pytest.mark.parametrize(
    ("val_loader", "error_text"),
    [
        ([], "val_loader yields nothing"),
        ([{"labels": 1}], r"val_loader must yield \(inputs, labels\), .* got one of 'labels'"),
        (_with(2, labels=7), "labels are out of range in batch 2 of val_loader"),
        (_with(3, inputs=torch.nan), "the model gives NaN scores in batch 3 of val_loader"),
    ],
    ids=["empty", "dict", "labels", "NaN"],
)
def test_bad_held_out_data_is_told_from_bad_training_data(val_loader, error_text):
    with pytest.raises(ValueError, match=error_text):
        _fit(_model(), _batches(), val_loader=val_loader)


@pytest.mark.parametrize(
    ("batch", "error_text"),
    [
        ({"pixel_values": torch.rand(4, 1, 2, 2)}, "got one of 'pixel_values'"),
        ((torch.rand(4, 1, 2, 2), torch.rand(4, 3)), "class indices"),
    ],
)
def test_batches_of_another_kind_are_refused_by_name(batch, error_text):
    with pytest.raises(ValueError, match=f"^clean_loader must yield .*{error_text}"):
        _fit(_model(), [batch])


class _Answer(nn.Linear):
    def __init__(self, answer):
        super().__init__(4, 3)
        self.answer = answer

    def forward(self, inputs):
        return self.answer(super().forward(inputs.flatten(1)))


@pytest.mark.parametrize("answer", [lambda s: (s, None), lambda s: {"logits": s, "loss": None}])
def test_a_model_that_answers_with_more_than_scores_trains_alike(answer):
    torch.manual_seed(0)
    plain = _Answer(lambda scores: scores)
    other = copy.deepcopy(plain)
    other.answer = answer
    assert _fit(plain, _batches())[-1].loss == _fit(other, _batches())[-1].loss


def test_a_model_that_answers_with_something_else_is_refused():
    with pytest.raises(ValueError, match="the model must return scores, .* got str"):  # noqa: RUF043
        _fit(_Answer(str), _batches())


def test_a_loss_that_runs_away_is_reported_with_its_learning_rate():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"the loss on clean_loader became NaN .* lower lr=1e\+38"):
        _fit(model, _batches((4,) * 8), lr=1e38, epochs=2)


def test_weights_that_run_away_in_the_very_last_step_are_not_handed_back():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    huge = [(x * 1e3, y) for x, y in _batches((4,))]
    with pytest.raises(ValueError, match=r"1\.weight holds NaN or inf after training; lower lr"):
        _fit(model, huge, lr=1e38)


def test_a_distance_that_runs_away_is_reported():
    with pytest.raises(ValueError, match=r"the distance became inf in epoch 1; lower lr=0\.1"):
        _fit(_model(), _batches(), distance=lambda: torch.tensor(torch.inf))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["1.weight", "2.running_var"])
def test_weights_and_buffers_with_nan_or_inf_are_named(name, value):
    model = _model()
    check_weights(model)
    model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(ValueError, match=f"the model's {name} holds NaN or inf"):
        check_weights(model)
