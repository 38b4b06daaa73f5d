"""Engines by name: built-in ones, those of other packages, options that an engine has."""

import pytest

from d3fast.results.engines import ENGINES, LOCAL, EngineChoice
from d3fast.results.pool import InlineEngine, local_engine
from d3fast.results.run_store import RunStore
from tests.plugins import install, site  # noqa: F401  (a fixture)
from tests.results.test_pool import Shared

MODULE = """
from d3fast.results.pool import local_engine

def start(shared, devices, *, threads, progress, address="none"):
    engine = local_engine(shared, ["cpu"])
    engine.address = address
    return engine
"""


def test_the_default_is_this_machine():
    assert list(ENGINES.builtin) == ["local", "ray"]
    assert isinstance(LOCAL.start(Shared(1), ["cpu"]), InlineEngine)
    assert ENGINES["local"] is local_engine


def test_an_installed_package_adds_an_engine(site):  # noqa: F811
    install(site, "farm", {"d3fast.engines": {"farm": "farm:start"}}, farm=MODULE)
    assert EngineChoice("farm", address="a:1").start(Shared(1), ["auto"]).address == "a:1"
    assert EngineChoice("farm:start").start(Shared(1), ["auto"]).address == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "warp"}, "engine must be one of 'local', 'ray'"),
        ({"address": "a:1"}, "engine 'local' has no option address"),
        ({"gpus_per_job": 0.5}, "engine 'local' has no option gpus_per_job"),
    ],
)
def test_engines_and_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EngineChoice(**options)


def test_devices_of_a_server_are_its_own_unless_they_are_named(monkeypatch):
    monkeypatch.setattr("d3fast.runtime.environment.cores", lambda: 9)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert LOCAL.parse_devices("auto", 3) == ["cpu"] * 3
    assert EngineChoice("ray").parse_devices("auto", 3) == ["auto"]
    assert EngineChoice("ray").parse_devices("cpu:2") == ["cpu", "cpu"]


def test_a_server_keeps_rows_in_the_run_directory_or_in_a_store(tmp_path):
    assert LOCAL.run_store(tmp_path) is None
    assert EngineChoice(store="s3://b/run").run_store(tmp_path) == RunStore("s3://b/run")
    assert EngineChoice("ray").run_store(tmp_path) == RunStore(str(tmp_path))
