"""Changes in words."""

from __future__ import annotations

from toolkit.bench.compare.comparison import Difference, Outcome
from toolkit.bench.rows import number

MISSING = "-"
_MOST = 10.0


def value(shown: Difference, figure: float) -> str:
    """A figure with its unit."""
    return f"{figure:.1%}" if shown.unit == "share" else f"{number(figure)} {shown.unit}"


def signed(shown: Difference, change: float | None) -> str:
    """A change: percent, or points of a share."""
    if change is None:
        return MISSING
    if shown.unit == "share":
        return f"{change * 100:+.1f} points"
    return f"{change:+.1%}" if change < _MOST else f">{_MOST:+.0%}"


def interval(shown: Difference) -> str:
    """From where to where the change may lie."""
    if shown.low is None or shown.high is None:
        return MISSING
    return f"{signed(shown, shown.low)} to {signed(shown, shown.high)}"


def detectable(shown: Difference) -> str:
    """The least change that would show."""
    return signed(shown, shown.detectable).lstrip("+").replace(">+", ">")


def evidence(outcome: Outcome, shown: Difference) -> str:
    """Why a limit on a change came out as it did."""
    text = f"{value(shown, shown.base)} -> {value(shown, shown.new)}, {signed(shown, shown.change)}"
    if shown.change is None:
        return f"{text}: the base is zero, so give a limit without a sign"
    if shown.low is None:
        return f"{text}: {_TOO_FEW}"
    text = f"{text} ({interval(shown)})"
    if outcome != "undecided":
        return text
    return f"{text}: only changes from {detectable(shown)} on would be sure to show"


def evidence_alone(shown: Difference, low: float | None, high: float | None) -> str:
    """Why a limit on the new figure itself came out as it did; it lies within low and high."""
    text = value(shown, shown.new)
    if low is None or high is None:
        return f"{text}: {_TOO_FEW}"
    return f"{text} ({value(shown, low)} to {value(shown, high)})"


_TOO_FEW = "too few requests to tell, measure longer and with --repeats 5"
