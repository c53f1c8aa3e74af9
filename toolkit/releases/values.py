"""Values of flags, parameters and fields: what kinds there are and which values fit."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import JsonValue as JsonValue

Kind: TypeAlias = Literal[
    "bool",
    "int",
    "float",
    "text",
    "choice",
    "ints",
    "floats",
    "texts",
    "paths",
    "mapping",
    "config",
    "object",
]
"""``paths`` is a list of lists of integers (a tree of draft tokens), ``config`` a nested class of
the LLM API, ``object`` something that only Python code can pass."""

_SCALARS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "text": (str,),
    "choice": (str,),
    "mapping": (dict,),
    "config": (dict,),
}
_ITEMS: dict[str, tuple[type, ...]] = {
    "ints": (int,),
    "floats": (int, float),
    "texts": (str,),
    "paths": (list,),
}
_BOOLS = {"true": True, "false": False}


def problem(
    kind: Kind,
    value: JsonValue,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> str | None:
    """Why ``value`` does not fit, in words that follow its name; None if it does."""
    if kind in _ITEMS:
        return _items_problem(kind, value, choices)
    if not _is(value, _SCALARS.get(kind, ())):
        return f"has to be {_article(kind)}, not {value!r}"
    if choices and value not in choices:
        return f"is one of {', '.join(choices)}, not {value!r}"
    if isinstance(value, int | float):
        if minimum is not None and value < minimum:
            return f"has to be {minimum:g} or more, not {value}"
        if maximum is not None and value > maximum:
            return f"has to be {maximum:g} or less, not {value}"
    return None


def read(kind: Kind, text: str) -> JsonValue:
    """The value that ``text``, a Triton model's parameter, stands for.

    Raises:
        ValueError: it is no value of that kind.
    """
    if kind == "bool":
        if text not in _BOOLS:
            raise ValueError(f"true or false, not {text!r}")
        return _BOOLS[text]
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    if kind == "ints":
        return [int(item) for item in text.split(",")]
    return text


def _items_problem(kind: str, value: JsonValue, choices: tuple[str, ...]) -> str | None:
    if not isinstance(value, list) or not all(_is(item, _ITEMS[kind]) for item in value):
        return f"has to be a list ({kind}), not {value!r}"
    outside = [str(item) for item in value if choices and item not in choices]
    return f"holds {', '.join(outside)}; known: {', '.join(choices)}" if outside else None


def _is(value: JsonValue, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aio" else f"a {kind}"
