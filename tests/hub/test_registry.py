# SPDX-License-Identifier: Apache-2.0
from importlib import import_module

import pytest

from d3fast.detox import save_weights
from d3fast.hub import RESOLVERS, Request, resolve
from d3fast.models import make_model
from tests.plugins import install, site

__all__ = ["site"]
GROUP = "d3fast.models"
FOUND = "found = object()\ndef nothing(request): return None\ndef mine(request): return found\n"


def test_every_listed_resolver_exists():
    for path in RESOLVERS.values():
        module, _, name = path.partition(":")
        assert callable(getattr(import_module(module), name))


def test_an_unknown_form_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'nowhere' is no model: give a folder of Hugging Face"):
        resolve(Request("nowhere"))


def test_a_plugin_is_asked_first(site):
    points = {GROUP: {"a": "families:nothing", "b": "families:mine"}}
    install(site, "other", points, families=FOUND)
    assert resolve(Request("preact_resnet_tiny")) is import_module("families").found


def test_a_plugin_that_cannot_be_imported_is_left_out_with_a_note(site, tmp_path):
    install(site, "broken", {GROUP: {"dent": "dents:resolve"}}, dents="1 / 0\n")
    with pytest.raises(ValueError, match=r"is no model: .* \(Left out: model family 'dent' of"):
        resolve(Request("nowhere"))
    path = tmp_path / "model.safetensors"
    save_weights(make_model("preact_resnet_tiny", 3, 1), path)
    suspect = resolve(Request(str(path)))
    assert suspect.notes[0] == (
        "Left out: model family 'dent' of broken 1.0: 'dents:resolve': importing dents raised "
        "ZeroDivisionError: division by zero."
    )
