# SPDX-License-Identifier: Apache-2.0
"""The resolvers, in the order in which they are asked, and plugins beside them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType
from typing import TypeAlias

from d3fast.hub.suspect import Request, Suspect
from d3fast.io.untrusted import printable
from d3fast.runtime.plugins import Registry

Resolver: TypeAlias = Callable[[Request], Suspect | None]

# Name, and where the function is: most import a library that few users need.
RESOLVERS: Mapping[str, str] = MappingProxyType(
    {
        "trojai": "d3fast.hub.trojai:resolve_trojai",
        "timm_folder": "d3fast.hub.timm_folder:resolve_timm_folder",
        "onnx": "d3fast.hub.onnx:resolve_onnx",
        "export": "d3fast.hub.export_archive:resolve_export",
        "program": "d3fast.hub.exported:refuse_program",
        "image_folder": "d3fast.hub.image_folder:resolve_image_folder",
        "text_folder": "d3fast.hub.text_folder:resolve_text_folder",
        "timm": "d3fast.hub.timm_names:resolve_timm",
        "torchvision": "d3fast.hub.torchvision_names:resolve_torchvision",
        "backdoorbench": "d3fast.hub.backdoorbench:resolve_backdoorbench",
        "weight file": "d3fast.hub.families:resolve_weight_file",
        "factory": "d3fast.hub.factory:resolve_factory",
    }
)
PLUGINS: Registry[Resolver] = Registry("model family", "d3fast.models", {})


def _loaded(path: str) -> Resolver:
    module, _, name = path.partition(":")
    resolver: Resolver = getattr(import_module(module), name)
    return resolver


def resolve(request: Request) -> Suspect:
    """Read the model that the user named.

    Plugins are asked first: installed packages with entry points of the group ``d3fast.models``,
    each a function like those of ``RESOLVERS``. A resolver returns ``None`` for a form of model
    that is not its own. A plugin that cannot be imported is left out, with a note.

    Raises:
        ValueError: no resolver knows the model; or a resolver refuses it, with the reason.
        OSError: a file that cannot be opened.
    """
    resolvers, notes = [], []
    for name in PLUGINS:
        try:
            resolvers.append(PLUGINS[name])
        except ValueError as error:
            notes.append(f"Left out: {error}.")
    for resolver in (*resolvers, *map(_loaded, RESOLVERS.values())):
        suspect = resolver(request)
        if suspect is not None:
            return replace(suspect, notes=(*notes, *suspect.notes)) if notes else suspect
    raise ValueError(
        f"'{printable(request.model, 200)}' is no model: give a folder of Hugging Face, "
        "hf://org/name, timm:NAME, torchvision:NAME, or package.module:factory with --checkpoint"
        + "".join(f" ({note})" for note in notes)
    )
