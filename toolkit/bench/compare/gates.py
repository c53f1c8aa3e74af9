"""Limits of a change, as people write them: ``ttft_p95 > +10% @ 32 users``.

    metric[_stat]  > or <  limit  [@ load]

A signed limit is a change from the base: ``+10%`` of it (of a share: points), ``+50ms``. One
without a sign holds the new figure alone: ``500ms``, and of shares ``1%``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from toolkit.bench.compare.figures import Figure, figure
from toolkit.errors import SpecError

_EXPRESSION = re.compile(
    r"\s*(?P<name>[A-Za-z_][\w.]*)\s*(?P<side>[<>])\s*(?P<sign>[+-]?)\s*(?P<size>\d+(?:\.\d+)?)"
    r"\s*(?P<unit>%|[A-Za-z]+(?:/s)?)?\s*(?:@\s*(?P<load>\S.*?))?\s*"
)
_MILLISECONDS = {"ms": 1.0, "s": 1000.0, "us": 0.001}
_EXAMPLE = 'such as "ttft_p95 > +10%", "output_throughput < -5% @ 32 users" or "e2e_p99 > 2s"'

Kind = Literal["part", "difference", "absolute"]


@dataclass(frozen=True)
class Gate:
    """What must not be: the figure above (or below) the limit.

    ``part`` holds the change as a part of the base, ``difference`` the change in the figure's
    unit, ``absolute`` the new figure itself. ``load`` names the only load it is meant for.
    """

    text: str
    figure: Figure
    above: bool
    kind: Kind
    limit: float
    load: str | None = None


def parse_gate(text: str) -> Gate:
    """Read one expression.

    Raises:
        SpecError: it is none, the metric is unknown, or the unit is not the metric's.
    """
    where = f"--fail-if {text!r}"
    found = _EXPRESSION.fullmatch(text)
    if found is None:
        raise SpecError("this is no limit", where=where, hint=f"write it {_EXAMPLE}")
    wanted = figure(found["name"], where)
    size = float(f"{found['sign']}{found['size']}")
    kind, limit = _limit(wanted, size, bool(found["sign"]), found["unit"] or "", where)
    return Gate(text.strip(), wanted, found["side"] == ">", kind, limit, found["load"])


def _limit(wanted: Figure, size: float, signed: bool, unit: str, where: str) -> tuple[Kind, float]:
    plain: Kind = "difference" if signed else "absolute"
    if unit == "%":
        if wanted.is_share:
            return plain, size / 100
        if not signed:
            raise SpecError(
                f"{size:g}% of what?",
                where=where,
                hint=f"a change from the base has a sign: +{size:g}% or -{size:g}%",
            )
        if size <= -100:
            raise SpecError("nothing falls by 100% or more", where=where)
        return "part", size / 100
    own = wanted.declared.unit
    if own == "ms":
        if unit in _MILLISECONDS:
            return plain, size * _MILLISECONDS[unit]
    elif unit in ("", own):
        return plain, size
    meant = "ms or s" if own == "ms" else own
    raise SpecError(
        f"{wanted.name} is not measured in {unit!r}" if unit else f"{size:g} of what?",
        where=where,
        hint=f"give it in {meant}, or as a change in %",
    )
