"""``${NAME}`` and ``${NAME:-default}`` in texts; ``$$`` stands for a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_REFERENCE = re.compile(r"\$\$|\$\{([^{}]*)\}|\$\{")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fault:
    """A reference that cannot be replaced; ``written`` is its text."""

    written: str
    message: str
    hint: str


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, list[Fault]]:
    """``text`` with its references replaced, and those that could not be.

    As in a shell, the default after ``:-`` serves a variable that is unset or empty.
    """
    faults: list[Fault] = []

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        inside = _INSIDE.fullmatch(match[1]) if match[1] is not None else None
        if inside is None:
            message = f"{match[0]!r} is not a reference to an environment variable"
            faults.append(
                Fault(match[0], message, "write ${NAME} or ${NAME:-default}; $$ is a dollar sign")
            )
            return match[0]
        name, default = inside[1], inside[2]
        value = environ.get(name)
        if default is not None:
            return value or default
        if value is None:
            hint = f"export {name}=..., or give a default: ${{{name}:-value}}"
            faults.append(Fault(match[0], f"the environment variable {name} is not set", hint))
            return match[0]
        return value

    return _REFERENCE.sub(replace, text), faults


def escape(text: str) -> str:
    """``text`` written so that :func:`expand` gives it back."""
    return text.replace("$", "$$")
