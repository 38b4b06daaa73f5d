"""``from d3fast import D3FusedSGD`` imports torch and the optimizer, and nothing that they lack."""

import subprocess
import sys

import pytest

from benchmarks.speed.import_time import import_times

UNNEEDED = (
    *("matplotlib", "typer", "rich", "sklearn", "scipy", "msgspec", "jinja2", "PIL"),
    *("torch._dynamo", "torch.distributed.tensor", "torch._inductor"),
    *("transformers", "lightning", "peft"),
    *(f"d3fast.{wing}" for wing in ("attacks", "audit", "benchmark", "cli", "data", "defenses")),
    *(f"d3fast.{wing}" for wing in ("detox", "integrations", "io", "models", "results")),
    *(f"d3fast.{wing}" for wing in ("spectrum", "text", "training")),
)


@pytest.fixture(scope="module")
def imported():
    """The modules that the import loads beyond torch's own, one name per line."""
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from d3fast import D3FusedSGD\n"
        "print(*set(sys.modules) - before, sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", UNNEEDED)
def test_the_optimizer_does_not_import(module, imported):
    assert module not in imported


def test_the_optimizer_imports_no_package_but_torch_and_its_own(imported):
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert packages == {"d3fast"}


def test_the_optimizer_imports_its_own_wing_and_the_runtime_alone(imported):
    wings = {name.split(".")[1] for name in imported if name.startswith("d3fast.")}
    assert wings == {"_C", "_renamed", "optim", "runtime"}


@pytest.mark.slow
def test_the_optimizer_adds_little_to_the_time_of_torch():
    times = import_times(rounds=2)
    # 50 ms beside about a second of torch; CPU time, since other tests run at the same time.
    assert min(own / of_torch for of_torch, own in times) < 0.1
