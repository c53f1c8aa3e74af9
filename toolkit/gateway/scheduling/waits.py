"""How long a new request of a class would wait: for admission and for whoever watches."""

from __future__ import annotations

import math
from collections.abc import Mapping

from toolkit.gateway.scheduling.capacity import Capacity
from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.classqueue import ClassQueue
from toolkit.gateway.scheduling.pace import Average
from toolkit.gateway.scheduling.rates import FadingRate
from toolkit.gateway.scheduling.replica import Job

_WORTH_LEARNING_S = 0.5  # shorter waits say nothing about the forecast
_CORRECTION = 4.0  # at most so much more, or less, than the plain forecast


class Waits:
    """The forecast, and how it came true.

    A class gets what the others leave, at least its weight's share of those that want something;
    the work before it in its own queue passes at that rate. What really happened corrects it.
    """

    def __init__(self, classes: Mapping[str, ClassPolicy]) -> None:
        self._weights = {name: policy.weight for name, policy in classes.items()}
        self._offered = {name: FadingRate() for name in classes}
        self._truth = {name: Average(memory=0.1) for name in classes}

    def arrives(self, job: Job, now: float) -> None:
        """A job's work is asked for."""
        self._offered[job.ticket.request_class].note(now, job.cost_s)

    def came_true(self, job: Job, now: float) -> None:
        """A job whose wait had been foreseen goes to an engine."""
        if job.foreseen_s >= _WORTH_LEARNING_S:
            waited = now - job.ticket.arrived
            ratio = min(_CORRECTION, max(1 / _CORRECTION, waited / job.foreseen_s))
            self._truth[job.ticket.request_class].add(ratio)

    def corrected(self, name: str, plain_s: float) -> float:
        """A plain forecast, by experience."""
        return plain_s * self._truth[name].known(1.0)

    def fair(
        self,
        name: str,
        queues: Mapping[str, ClassQueue],
        capacity: Capacity,
        now: float,
        owner: str | None = None,
    ) -> float:
        """The plain forecast under fair shares, seconds; see :meth:`ClassQueue.cost_before`."""
        ahead = queues[name].cost_before(owner)
        horizon = ahead / capacity.speed + 1.0
        wants = {
            other: (self._offered[other].per_s(now) + queue.cost_s / horizon) / capacity.speed
            for other, queue in queues.items()
            if other != name
        }
        return self._behind(ahead, capacity, self._left_for(name, wants))

    def _left_for(self, name: str, wants: dict[str, float]) -> float:
        """The share of the capacity that a class gets which wants all it can get.

        Whoever wants less than its weight's part gets that, the rest divide what remains.
        """
        left, weights = 1.0, self._weights[name] + sum(self._weights[other] for other in wants)
        while modest := [o for o in wants if wants[o] * weights <= left * self._weights[o]]:
            for other in modest:
                left -= wants.pop(other)
                weights -= self._weights[other]
        return left * self._weights[name] / weights

    def arrival(self, queues: Mapping[str, ClassQueue], capacity: Capacity) -> float:
        """The plain forecast in order of arrival, seconds."""
        return self._behind(sum(q.cost_s for q in queues.values()), capacity, 1.0)

    def _behind(self, ahead: float, capacity: Capacity, share: float) -> float:
        if capacity.speed <= 0 or share <= 0:
            return math.inf
        next_end = 1 / capacity.ends_per_s if capacity.ends_per_s else 0.0
        return ahead / (capacity.speed * share) + next_end
