"""How many wait, by class and owner, and who may wait as well."""

from __future__ import annotations

from collections import Counter

from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.tickets import Ticket

_MOST = 2  # times a class's ``max_queued``, whoever asks


class Queued:
    """Counts of waiting tickets.

    ``shared``: a class that is full still takes an owner (API key) that has less than its equal
    part of the places, as otherwise one key could keep every other one out. Those come on top, up
    to as many places again.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._total: Counter[str] = Counter()
        self._owners: dict[str, Counter[str]] = {}

    def add(self, ticket: Ticket) -> None:
        """It waits."""
        self._total[ticket.request_class] += 1
        self._owners.setdefault(ticket.request_class, Counter())[ticket.owner] += 1

    def remove(self, ticket: Ticket) -> None:
        """It waits no longer."""
        self._total[ticket.request_class] -= 1
        owners = self._owners[ticket.request_class]
        owners[ticket.owner] -= 1
        if not owners[ticket.owner]:
            del owners[ticket.owner]

    def of(self, request_class: str) -> int:
        """How many of a class wait."""
        return self._total[request_class]

    def full_for(self, ticket: Ticket, policy: ClassPolicy) -> bool:
        """Whether there is no place left for one more of this owner's."""
        total, most = self._total[policy.name], policy.max_queued
        if total < most:
            return False
        if not self._shared or total >= _MOST * most:
            return True
        owners = self._owners[policy.name]
        return owners[ticket.owner] * len({*owners, ticket.owner}) >= most
