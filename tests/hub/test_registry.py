# SPDX-License-Identifier: Apache-2.0
from importlib import import_module

import pytest

from d3fast.hub import RESOLVERS, Request, registry, resolve


class Point:
    """An entry point of an installed package."""

    def __init__(self, answer):
        self.answer = answer

    def load(self):
        return lambda request: self.answer


def test_every_listed_resolver_exists():
    for path in RESOLVERS.values():
        module, _, name = path.partition(":")
        assert callable(getattr(import_module(module), name))


def test_an_unknown_form_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'nowhere' is no model: give a folder of Hugging Face"):
        resolve(Request("nowhere"))


def test_a_plugin_is_asked_first(monkeypatch):
    found = object()
    monkeypatch.setattr(registry, "entry_points", lambda group: [Point(None), Point(found)])
    assert resolve(Request("preact_resnet_tiny")) is found
