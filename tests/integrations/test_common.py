"""What every callback does, driven by a trainer that is a loop."""

import json
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import d3fast
from d3fast import CleanLoss, D3Config, D3FusedAdamW, D3FusedSGD, detoxify
from d3fast.integrations.common import Repair, RepairOptions, find_optimizer
from d3fast.optim.schedules import DistanceSchedule

RAMP = partial(DistanceSchedule, shape="cosine", start=0.0, steps=3)


class FakeTrainer:
    """The hooks of a trainer around the simplest loop: one batch is an epoch."""

    def __init__(self, model, clean, options, weight=2.0):
        (self.train, self.val), self.model, self.done = clean, model, 0
        self.opt = D3FusedSGD(d3fast.param_groups(model), lr=0.05, momentum=0.9)
        self.loss = CleanLoss(0.1, weight)
        self.repair = Repair(RepairOptions(**options))
        self.logged = []

    def validate(self):
        images, labels = self.val.tensors
        with torch.no_grad():
            logits = self.model(images)
        acc = (logits.argmax(1) == labels).double().mean()
        return {"val_loss": cross_entropy(logits, labels), "val_acc": acc}

    def fit(self, epochs):
        if self.repair.needs_suspect and self.done == 0:
            self.repair.measure_suspect(self.validate())
        self.repair.begin(self.opt, self.loss)
        for epoch in range(self.done, epochs):
            self.repair.begin_epoch(epoch)
            images, labels = self.train.tensors
            self.opt.zero_grad()
            self.loss(self.model(images), labels).backward()
            self.opt.step()
            self.done += 1
            self.logged.append({k: float(v) for k, v in self.repair.readings().items()})
            if self.repair.validated(self.validate()):
                break
        return self

    def save(self):
        saved = json.loads(json.dumps(self.repair.state_dict()))
        weights = {name: t.clone() for name, t in self.model.state_dict().items()}
        return {"done": self.done, "opt": self.opt.state_dict(), "d3": saved, "model": weights}

    def load(self, saved):
        self.model.load_state_dict(saved["model"])
        self.opt.load_state_dict(saved["opt"])
        self.repair.load_state_dict(saved["d3"])
        self.done = saved["done"]
        return self


def test_a_training_with_the_callback_is_detoxify_bit_for_bit(suspect, clean, same_weights):
    config = D3Config.authors(epochs=4, lr=0.05, schedule="constant", seed=3)
    want = detoxify(suspect(), [clean[0].tensors], config, progress=False)
    trainer = FakeTrainer(suspect(), clean, {"seed": 3}, weight=config.weights()[0]).fit(4)
    assert same_weights(trainer.model, want.model)
    assert trainer.logged[-1]["d3/distance"] == want.history[-1].distance


def test_the_warm_start_is_taken_once(suspect, clean):
    trainer = FakeTrainer(suspect(), clean, {"warm_start": "middle"})
    trainer.repair.begin(trainer.opt, trainer.loss)
    head = trainer.model[2].weight
    assert not head.any()
    with torch.no_grad():
        head.fill_(1.0)
    trainer.repair.begin(trainer.opt, trainer.loss)
    assert head.all()


def test_another_optimizer_gets_a_warm_start_of_its_own(suspect, clean):
    first = FakeTrainer(suspect(), clean, {"warm_start": "middle"}).fit(1)
    second = FakeTrainer(suspect(), clean, {})
    first.repair.begin(second.opt, second.loss)
    assert not second.model[2].weight.any()


def test_the_schedule_is_where_the_epochs_are(suspect, clean):
    trainer = FakeTrainer(suspect(), clean, {"schedule": RAMP}).fit(5)
    got = [logs["d3/distance_weight"] for logs in trainer.logged]
    assert got == pytest.approx([0.0, 0.25, 0.75, 1.0, 1.0])


def test_a_shell_is_logged_by_both_its_ends(suspect):
    opt = D3FusedSGD(
        suspect().parameters(), track="all", constraint="distance_shell", radius=(0.5, 1.0)
    )
    ramp = partial(DistanceSchedule, what="radius", start=(0.1, 0.2), steps=2)
    repair = Repair(RepairOptions(schedule=ramp))
    repair.begin(opt, None)
    readings = repair.readings()
    assert (readings["d3/radius/lower"], readings["d3/radius/upper"]) == (0.1, 0.2)


def test_distances_are_logged_in_total_and_per_tensor(suspect):
    model = suspect()
    opt = D3FusedSGD(d3fast.param_groups(model, "linear"))
    repair = Repair(RepairOptions(warm_start="far"))
    repair.begin(opt, None)
    got = {name: float(value) for name, value in repair.readings().items()}
    norms = [2 * float(model[i].weight.detach().norm()) for i in (0, 2)]
    want = {"": sum(norms), "/0.weight": norms[0], "/2.weight": norms[1]}
    assert got == pytest.approx({f"d3/distance{name}": norm for name, norm in want.items()})


def test_lambda_climbs_by_the_excess_of_the_validation_loss(suspect, clean):
    trainer = FakeTrainer(suspect(), clean, {"dual_step": 0.5})
    trainer.repair.begin(trainer.opt, trainer.loss)
    trainer.repair.validated({"val_loss": torch.tensor(0.7)})
    assert trainer.loss.weight == pytest.approx(2.0 + 0.5 * 0.6)
    trainer.repair.validated({"val_loss": 0.0})
    assert trainer.loss.weight == pytest.approx(2.3 - 0.05)


def test_lambda_stays_above_zero(suspect, clean):
    trainer = FakeTrainer(suspect(), clean, {"dual_step": 100.0})
    trainer.repair.begin(trainer.opt, trainer.loss)
    trainer.repair.validated({"val_loss": 0.0})
    assert trainer.loss.weight == 0.0


def test_accuracy_that_was_within_the_budget_and_left_it_stops(suspect):
    repair = Repair(RepairOptions(max_acc_drop=2.0, suspect_acc=0.95))
    repair.begin(D3FusedSGD(suspect().parameters(), track="all"), None)
    got = [repair.validated({"val_acc": acc}) for acc in (0.4, 0.92, 0.93, 0.95, 0.92)]
    assert got == [False, False, False, False, True]


@pytest.mark.parametrize("after", range(1, 6))
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(
    after, suspect, clean, same_weights
):
    options = {"schedule": RAMP, "dual_step": 2.0, "max_acc_drop": 30.0}
    whole = FakeTrainer(suspect(), clean, options).fit(6)
    saved = FakeTrainer(suspect(), clean, options).fit(after).save()
    resumed = FakeTrainer(suspect(), clean, options).load(saved).fit(6)
    assert same_weights(resumed.model, whole.model)
    assert resumed.logged == whole.logged[after:]
    assert resumed.repair.state_dict() == whole.repair.state_dict()
    assert whole.loss.weight != 2.0


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        (torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), "got SGD"),
        ([], "got none"),
        (
            [D3FusedSGD([nn.Parameter(torch.ones(1))], track="all") for _ in range(2)],
            "got D3FusedSGD, D3Fused",
        ),
    ],
)
def test_optimizers_that_are_not_one_d3_are_refused_in_one_line(optimizers, message):
    with pytest.raises(ValueError, match=f"D3FusedSGD or D3FusedAdamW, {message}"):
        find_optimizer(optimizers)


def test_either_d3_optimizer_is_found_behind_a_wrapper():
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

    for optimizer in (D3FusedSGD, D3FusedAdamW):
        inner = optimizer([nn.Parameter(torch.ones(1))], track="all")
        assert find_optimizer([Wrapper(inner)]) is inner


def test_an_optimizer_is_taken_out_of_its_wrapper(suspect):
    inner = D3FusedSGD(suspect().parameters(), track="all")
    wrapper = type("Wrapper", (), {"optimizer": type("Inner", (), {"optimizer": inner})()})()
    wrapper.optimizer = inner
    assert find_optimizer([wrapper]) is inner


def test_dual_ascent_needs_a_clean_loss(suspect):
    with pytest.raises(ValueError, match="dual_step > 0 moves the weight of a CleanLoss"):
        Repair(RepairOptions(dual_step=1.0)).begin(
            D3FusedSGD(suspect().parameters(), track="all"), None
        )


def test_a_budget_needs_the_suspects_accuracy(suspect):
    repair = Repair(RepairOptions(max_acc_drop=1.0))
    with pytest.raises(ValueError, match="max_acc_drop needs the suspect's accuracy"):
        repair.begin(D3FusedSGD(suspect().parameters(), track="all"), None)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"val_acc": 0.9}, "gives no metric 'val_loss', it gives 'val_acc'"),
        ({}, "gives no metric 'val_loss', it gives nothing"),
        ({"val_loss": math.nan, "val_acc": 0.9}, "'val_loss' became nan"),
        ({"val_loss": 0.3, "val_acc": 93.0}, r"val_acc must be a share in \[0, 1\], got 93"),
    ],
)
def test_metrics_that_cannot_be_used_are_refused(suspect, metrics, message):
    repair = Repair(RepairOptions(max_acc_drop=1.0, suspect_acc=0.9, dual_step=1.0))
    repair.begin(D3FusedSGD(suspect().parameters(), track="all"), CleanLoss())
    with pytest.raises(ValueError, match=message):
        repair.validated(metrics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_start": "hot"}, "warm_start must be one of"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"dual_step": -1.0}, "dual_step must be finite and >= 0"),
        ({"max_acc_drop": math.nan}, "max_acc_drop must be finite"),
        ({"suspect_acc": 95.0}, r"suspect_acc must be a share in \[0, 1\], got 95"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RepairOptions(**options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"within": 1}, "within must be true or false, got 1"),
        ({"suspect_acc": 2}, "suspect_acc must be a share"),
        ({"clean_weight": -1}, "clean_weight must be finite"),
        ({"schedule": "linear"}, "schedule must be a mapping"),
    ],
)
def test_a_state_that_cannot_be_is_refused(changes, message):
    repair = Repair(RepairOptions())
    with pytest.raises(ValueError, match=message):
        repair.load_state_dict({**repair.state_dict(), **changes})


def test_importing_d3fast_imports_no_trainer():
    code = (
        "import sys, d3fast, d3fast.integrations.common; "
        "sys.exit(bool({'lightning', 'transformers', 'accelerate', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", ["lightning", "transformers", "peft"])
def test_a_missing_package_is_one_line_that_says_what_to_install(package):
    code = f"import sys; sys.modules[{package!r}] = None; import d3fast.integrations.{package}"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    last = run.stderr.strip().splitlines()[-1]
    assert last == (
        f"ImportError: d3fast.integrations.{package} needs {package}: "
        f"pip install 'd3fast[{package}]'"
    )
