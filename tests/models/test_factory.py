"""A model from a name, or from the user's own factory."""

import re
import sys

import pytest
import torch
from torch import nn

from d3fast.models import MODELS, make_model

USERS = """
import torch
from torch import nn

NOT_CALLABLE = 3

class Net(nn.Linear):
    def __init__(self, num_classes, in_channels=3):
        super().__init__(in_channels, num_classes)

    @classmethod
    def large(cls, num_classes):
        return cls(num_classes, 100)

def positional(outputs, inputs): return nn.Linear(inputs, outputs)
def swapped(in_channels, num_classes): return nn.Linear(in_channels, num_classes)
def keywords(*, num_classes, in_channels): return nn.Linear(in_channels, num_classes)
def classes_alone(num_classes): return nn.Linear(5, num_classes)
def channels_alone(in_channels, width=4): return nn.Linear(in_channels, width)
def nothing(): return nn.Linear(7, 8)
def defaults(pretrained=False, progress=True): return nn.Linear(9, 9 + pretrained)
def torchvision_like(*, weights=None, **kwargs): return nn.Linear(6, kwargs["num_classes"])
def one_of_another_name(classes): return nn.Linear(2, classes)
def three(a, b, c): return nn.Linear(a, b)
def mixed(num_classes, in_channels, width): return nn.Linear(width, num_classes)
def own_keywords(*, outputs, inputs): return nn.Linear(inputs, outputs)
def raises(num_classes): raise KeyError("no such\\nblock")
def no_module(): return {"a": 1}
def a_class(): return nn.Linear
"""


@pytest.fixture(autouse=True)
def users(tmp_path, monkeypatch):
    """A package of the user's own, on the path."""
    package = tmp_path / "users_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(USERS)
    (package / "broken.py").write_text("import d3fast\n1 / 0\n")
    (package / "typo.py").write_text("def make(:\n")
    (package / "needs.py").write_text("import not_installed_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "users_package"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_name_of_the_registry(name):
    with torch.device("meta"):
        model = make_model(name, 4, 2)
        assert type(model) is type(MODELS[name](4, 2))
    assert model.head.out_features == 4


@pytest.mark.parametrize(
    ("factory", "size"),
    [
        ("Net", (3, 10)),
        ("Net.large", (100, 10)),
        ("positional", (3, 10)),
        ("swapped", (3, 10)),
        ("keywords", (3, 10)),
        ("classes_alone", (5, 10)),
        ("channels_alone", (3, 4)),
        ("nothing", (7, 8)),
        ("defaults", (9, 9)),
        ("torchvision_like", (6, 10)),
    ],
)
def test_a_factory_gets_what_it_has_parameters_for(factory, size):
    model = make_model(f"users_package.nets:{factory}", 10, 3)
    assert (model.in_features, model.out_features) == size


@pytest.mark.parametrize("name", ["resnet", "", "a/b.py:make", "nets.py", "a:b:c", "a: b", "a:", 3])
def test_an_unknown_name_lists_the_choices(name):
    choices = ", ".join(map(repr, MODELS))
    message = f"model must be one of {choices}, or 'package.module:factory', got {name!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_model(name, 10, 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_package.nets:Net", "there is no module 'no_package' in the folders of sys.path"),
        ("users_package.no:Net", "there is no module 'users_package.no' in the"),
        ("users_package.broken:f", "importing users_package.broken raised ZeroDivisionError: "),
        ("users_package.typo:f", "importing users_package.typo raised SyntaxError: "),
        (
            "users_package.needs:f",
            "importing users_package.needs raised ModuleNotFoundError: No "
            "module named 'not_installed_at_all'",
        ),
        ("users_package.nets:Missing", "users_package.nets has no 'Missing'"),
        ("users_package.nets:Net.Missing", "users_package.nets has no 'Net.Missing'"),
        ("users_package.nets:NOT_CALLABLE", "must be callable, got a int"),
        (
            "users_package.nets:one_of_another_name",
            "the factory must need (num_classes, in_channels) or nothing, it needs (classes)",
        ),
        ("users_package.nets:three", "it needs (a, b, c)"),
        ("users_package.nets:mixed", "it needs (num_classes, in_channels, width)"),
        ("users_package.nets:own_keywords", "it needs (outputs, inputs)"),
        ("users_package.nets:raises", "calling it raised KeyError: 'no such"),
        ("users_package.nets:no_module", "the factory must return a torch.nn.Module, got a dict"),
        ("users_package.nets:a_class", "the factory must return a torch.nn.Module, got a type"),
    ],
)
def test_what_cannot_be_built_is_one_line(spec, message):
    with pytest.raises(ValueError, match=f"^model '{spec}': .*{re.escape(message)}") as caught:
        make_model(spec, 10, 3)
    assert "\n" not in str(caught.value)


def test_what_the_users_code_raised_stays_with_the_error():
    with pytest.raises(ValueError, match="calling it raised") as caught:
        make_model("users_package.nets:raises", 10, 3)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(("classes", "channels"), [(0, 3), (10, 0), (2.0, 3), (10, True)])
def test_sizes_that_cannot_be_are_refused(classes, channels):
    with pytest.raises(ValueError, match="must be an integer >= 1"):
        make_model("users_package.nets:nothing", classes, channels)


def test_the_path_is_left_alone():
    before = list(sys.path)
    assert isinstance(make_model("users_package.nets:nothing", 10, 3), nn.Linear)
    assert sys.path == before
