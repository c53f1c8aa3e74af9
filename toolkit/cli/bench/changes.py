"""What flags of the command line change in a scenario."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.spec.document import parse_value
from toolkit.spec.overrides import Override
from toolkit.spec.problems import Place


def change(flag: str, field: str, value: object) -> Iterator[Override]:
    """The override that a flag stands for, none without a value; errors then name the flag."""
    if value is not None:
        yield Override(tuple(field.split(".")), parse_value(str(value), flag), Place(flag))
