"""The moments of a request's life that can be watched."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.gateway.work import Final, GatewayError, Work


class Observer:
    """Does nothing; override what is of interest. Times are seconds.

    Every method runs on the event loop between two tokens: it has to be quick and must not raise.
    """

    def queued(self, work: Work) -> None:
        """The request waits for a replica."""

    def refused(self, work: Work, reason: str) -> None:
        """It was refused before it waited: ``reason`` is one of few words."""

    def dispatched(self, work: Work, replica: str, waited_s: float) -> None:
        """A replica has it, after ``waited_s`` since it was queued; may come again on a retry."""

    def first_token(self, work: Work, replica: str, ttft_s: float) -> None:
        """The first text has come, ``ttft_s`` after it was queued."""

    def piece(self, work: Work, gap_s: float) -> None:
        """More text has come, ``gap_s`` after the text before."""

    def finished(self, work: Work, replica: str, final: Final, e2e_s: float) -> None:
        """The last piece has come."""

    def failed(self, work: Work, error: GatewayError) -> None:
        """It ends with an error after it was queued."""

    def withdrawn(self, work: Work) -> None:
        """The client has gone away."""

    def retried(self, work: Work, replica: str) -> None:
        """``replica`` failed before a token; another one is to take it."""

    def replica_changed(self, replica: str, model: str, up: bool, why: str) -> None:
        """A replica was ejected, or taken back."""


class Observers(Observer):
    """Tells several."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def queued(self, work: Work) -> None:
        for each in self._observers:
            each.queued(work)

    def refused(self, work: Work, reason: str) -> None:
        for each in self._observers:
            each.refused(work, reason)

    def dispatched(self, work: Work, replica: str, waited_s: float) -> None:
        for each in self._observers:
            each.dispatched(work, replica, waited_s)

    def first_token(self, work: Work, replica: str, ttft_s: float) -> None:
        for each in self._observers:
            each.first_token(work, replica, ttft_s)

    def piece(self, work: Work, gap_s: float) -> None:
        for each in self._observers:
            each.piece(work, gap_s)

    def finished(self, work: Work, replica: str, final: Final, e2e_s: float) -> None:
        for each in self._observers:
            each.finished(work, replica, final, e2e_s)

    def failed(self, work: Work, error: GatewayError) -> None:
        for each in self._observers:
            each.failed(work, error)

    def withdrawn(self, work: Work) -> None:
        for each in self._observers:
            each.withdrawn(work)

    def retried(self, work: Work, replica: str) -> None:
        for each in self._observers:
            each.retried(work, replica)

    def replica_changed(self, replica: str, model: str, up: bool, why: str) -> None:
        for each in self._observers:
            each.replica_changed(replica, model, up, why)
