# SPDX-License-Identifier: Apache-2.0
"""Groups of options: a command takes a dataclass, the command line has its fields as options."""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any, get_type_hints


def with_groups(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose parameters of dataclass types are replaced by their fields.

    The fields are annotated as Typer's parameters are. The command is called with instances.

    Raises:
        ValueError: a field with the name of another parameter.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Shared:
        ...     seed: int = 0
        >>> list(signature(with_groups(lambda: None)).parameters)
        []
        >>> def command(name: str, shared: Shared) -> int:
        ...     return shared.seed
        >>> list(signature(with_groups(command)).parameters)
        ['name', 'seed']
        >>> with_groups(command)(name="a", seed=3)
        3
    """
    hints = get_type_hints(command, include_extras=True)
    own = signature(command).parameters
    groups = {name: hints[name] for name in own if is_dataclass(hints.get(name))}
    flat: dict[str, Parameter] = {}
    for name, parameter in own.items():
        options = [parameter.replace(annotation=hints.get(name, parameter.annotation))]
        if name in groups:
            kinds = get_type_hints(groups[name], include_extras=True)
            options = [_option(field, kinds[field.name]) for field in fields(groups[name])]
        for option in options:
            if option.name in flat:
                raise ValueError(f"{command.__name__} has two options named {option.name!r}")
            flat[option.name] = option

    @wraps(command)
    def call(**given: Any) -> Any:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        return command(**given, **made)

    # Parameters without a default may follow others: Typer passes all of them by name.
    ordered = [option.replace(kind=Parameter.KEYWORD_ONLY) for option in flat.values()]
    call.__signature__ = signature(command).replace(parameters=ordered)  # type: ignore[attr-defined]
    call.__annotations__ = {option.name: option.annotation for option in ordered}
    return call


def _option(field: Field[Any], annotation: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
