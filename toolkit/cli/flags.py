"""Options in groups: a command takes a dataclass, its user types the fields as options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command`` with each parameter that is a dataclass replaced by one for each field.

    A field is annotated as a Typer parameter is; it needs a default unless it is an argument
    that must be given. So a group of options lives in one module with what they mean, and many
    commands can take it.

    Raises:
        ValueError: two groups have a field of the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            groups[name] = hints[name]
            flat.extend(_fields(hints[name]))
        else:
            flat.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name]))

    def call(**values: Any) -> Any:
        made = {
            name: group(**{one.name: values.pop(one.name) for one in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        return command(**made, **values)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__annotations__ = {}
    call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    return call


def _fields(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is dataclasses.MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in dataclasses.fields(group)
    ]
