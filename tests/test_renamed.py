"""Names of release 0.1.0 still work, with a warning."""

import importlib
import subprocess
import sys

import pytest

import d3fast
from d3fast import _renamed, audit, spectrum
from d3fast.audit import model_report


@pytest.mark.parametrize("new", sorted(set(_renamed.MODULES.values())))
def test_every_new_module_exists(new):
    assert importlib.import_module(new).__name__ == new


def test_an_old_module_is_the_new_one_and_warns():
    code = (
        "import warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        "try:\n    import d3fast.metrics\n"
        "except DeprecationWarning as warning:\n    print(warning)\n"
        "warnings.simplefilter('ignore')\n"
        "import d3fast.metrics, d3fast.training.metrics\n"
        "print(sys.modules['d3fast.metrics'] is sys.modules['d3fast.training.metrics'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["d3fast.metrics is now d3fast.training.metrics", "True"]


@pytest.mark.parametrize("old", _renamed.NAMES)
def test_an_old_name_of_the_package_is_the_new_one_and_warns(old):
    new = _renamed.NAMES[old]
    with pytest.warns(DeprecationWarning, match=f"d3fast.{old} is now d3fast.{new}"):
        assert getattr(d3fast, old) is getattr(d3fast, new)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (audit, "SIGNS", "DETECTORS"),
        (model_report, "findings", "parse_model_report"),
        (model_report, "Findings", "ModelReport"),
        (spectrum, "portrait", "curvature_report"),
        (spectrum, "PortraitConfig", "CurvatureReportConfig"),
    ],
)
def test_an_old_name_of_a_module_is_the_new_one_and_warns(module, old, new):
    name = module.__name__
    with pytest.warns(DeprecationWarning, match=f"{name}.{old} is now {name}.{new}"):
        assert getattr(module, old) is getattr(module, new)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'luck'"):
        _ = audit.luck
