"""Efficiency factors from measurements: least squares, held near what was known before.

The factors are moved until the predicted times per token come closest to the measured ones, by
Levenberg's and Marquardt's method on logarithms, so that no factor gets below zero and relative
errors count. A factor that the measurements do not tell apart stays where it was: moving it away
costs a little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.capacity.efficiency import Efficiency
from toolkit.capacity.serving import Replica, decoding_tpot, with_running
from toolkit.capacity.traffic import Traffic
from toolkit.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FACTORS = ("bandwidth", "compute", "link", "step_s", "layer_s", "row_s", "collective_s")
_LINKED = ("link", "collective_s")
_PRIOR = 0.05
"""Weight of a factor's own logarithm against that of a measurement: a factor may move to e times
what it was for an error of 5 % in one measurement."""

_ROUNDS = 60
_NUDGE = 1e-4


@dataclass(frozen=True, slots=True)
class Observation:
    """What was measured of one replica under a steady load.

    Attributes:
        running: Requests that were decoded at once, on average.
        tpot_s: Seconds between tokens, mean.
        ttft_s: Seconds to the first token; used where a request was alone.
        together: All began together, so that no prompt was computed between their tokens. In a
            steady load others' prompts are.
    """

    label: str
    traffic: Traffic
    running: float
    tpot_s: float
    ttft_s: float | None = None
    together: bool = False


@dataclass(frozen=True, slots=True)
class Residual:
    """One measurement and what the calibrated model says."""

    label: str
    what: str
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.predicted_s / self.measured_s - 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """Factors and how well they explain what was measured."""

    factors: Efficiency
    residuals: tuple[Residual, ...]

    @property
    def worst(self) -> float:
        """The greatest relative error."""
        return max(abs(residual.error) for residual in self.residuals)


def calibrate(replica: Replica, observations: Sequence[Observation], *, source: str) -> Calibration:
    """The factors that explain the observations best, from those of ``replica``.

    Args:
        replica: What was measured, with the factors to begin with.
        observations: At two loads or more; one tells little.
        source: What is written beside the factors.

    Raises:
        SpecError: there are none.
    """
    import numpy as np

    if not observations:
        raise SpecError(
            "the report has no load with a time per output token",
            hint="measure answers of two tokens or more, at two numbers of users or more",
        )
    names = [name for name in _FACTORS if _counts(replica, name)]
    before = np.log([getattr(replica.factors, name) for name in names])

    def moved(logs: Floats) -> Efficiency:
        values: dict[str, Any] = dict(zip(names, np.exp(logs).tolist(), strict=True))
        return replace(replica.factors, **values)

    def errors(logs: Floats) -> Floats:
        tried = replace(replica, factors=moved(logs))
        found = [np.log(r.predicted_s / r.measured_s) for r in residuals(tried, observations)]
        return np.concatenate([found, _PRIOR * (logs - before)])

    factors = replace(moved(_descend(errors, before)), source=source)
    found = residuals(replace(replica, factors=factors), observations)
    return Calibration(factors, tuple(found))


def residuals(replica: Replica, observations: Sequence[Observation]) -> list[Residual]:
    """What the replica's factors say of each observation."""
    found = []
    for seen in observations:
        told = decoding_tpot if seen.together else _steady_tpot
        tpot = told(replica, seen.traffic, seen.running)
        found.append(Residual(seen.label, "time per token", seen.tpot_s, tpot))
        if seen.ttft_s is not None and seen.running <= 1:
            alone = with_running(replica, seen.traffic, 1e-6)
            found.append(Residual(seen.label, "time to first token", seen.ttft_s, alone.ttft_s))
    return found


def _steady_tpot(replica: Replica, traffic: Traffic, running: float) -> float:
    return with_running(replica, traffic, running).tpot_s


def _counts(replica: Replica, name: str) -> bool:
    linked = replica.work.collectives > 0 or name not in _LINKED
    return linked and getattr(replica.factors, name) > 0


def _descend(errors: Callable[[Floats], Floats], start: Floats) -> Floats:
    import numpy as np

    logs: Floats = start
    now, damping = errors(start), 0.01
    for _ in range(_ROUNDS):
        nudged = [errors(logs + step) for step in _NUDGE * np.eye(len(logs))]
        slopes = np.stack([(other - now) / _NUDGE for other in nudged], axis=1)
        square, pull = slopes.T @ slopes, slopes.T @ now
        before = float(now @ now)
        while damping < 1e6:
            step = np.linalg.solve(square + damping * np.diag(np.diag(square)), pull)
            tried = logs - np.clip(step, -1.0, 1.0)
            outcome = errors(tried)
            if float(outcome @ outcome) < before:
                break
            damping *= 5
        else:
            return logs
        damping /= 5
        logs, now = tried, outcome
        if float(now @ now) > before * (1 - 1e-9):
            return logs
    return logs
