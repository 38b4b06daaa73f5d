"""Modules whose optional package is missing have no doctests to collect."""

from importlib.util import find_spec

collect_ignore = [
    f"d3fast/integrations/{package}.py"
    for package in ("lightning", "transformers", "peft")
    if find_spec(package) is None
]
