"""Was the client itself the bottleneck? Then its figures are not the server's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from pydantic import BaseModel

from toolkit.bench.records import RequestRecord, clock

_SAMPLE_EVERY = 0.05
_LAG_LIMIT_MS = 20.0
_CPU_LIMIT = 0.85


class ClientHealth(BaseModel):
    """How busy the client was.

    ``loop_lag_p99_ms`` is how late the event loop ran what was due; ``send_lag_p99_ms`` how
    long after its intended time a request went out (already part of the latencies);
    ``cpu_share`` the processor time of the client's process over the elapsed time, of which
    one process can use 1.0. With several ``processes``, each figure is that of the worst.
    """

    loop_lag_p99_ms: float
    send_lag_p99_ms: float
    cpu_share: float
    saturated: bool
    reasons: tuple[str, ...] = ()
    processes: int = 1

    @classmethod
    def of(
        cls, loop_lag_ms: float, send_lag_ms: float, cpu_share: float, processes: int = 1
    ) -> ClientHealth:
        """Judge the figures."""
        reasons = []
        if loop_lag_ms > _LAG_LIMIT_MS:
            reasons.append(f"its event loop ran {loop_lag_ms:.0f} ms late (p99)")
        if send_lag_ms > _LAG_LIMIT_MS:
            reasons.append(f"it sent requests {send_lag_ms:.0f} ms late (p99)")
        if cpu_share > _CPU_LIMIT:
            reasons.append(f"it used {cpu_share:.0%} of a processor core")
        return cls(
            loop_lag_p99_ms=loop_lag_ms,
            send_lag_p99_ms=send_lag_ms,
            cpu_share=cpu_share,
            saturated=bool(reasons),
            reasons=tuple(reasons),
            processes=processes,
        )

    @classmethod
    def together(cls, parts: Sequence[ClientHealth]) -> ClientHealth:
        """That of several processes: one that is saturated bends the figures of all."""
        if len(parts) == 1:
            return parts[0]
        return cls.of(
            max(part.loop_lag_p99_ms for part in parts),
            max(part.send_lag_p99_ms for part in parts),
            max(part.cpu_share for part in parts),
            len(parts),
        )


class Watch:
    """Measures the client while its block runs (``async with``)."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Forget what was before: waiting for other processes is no work, for example."""
        self._began, self._cpu = clock(), time.process_time()
        self._lags.clear()
        self._ended = False

    def end(self) -> None:
        """Let nothing count that comes after."""
        if self._ended:
            return
        self._ended = True
        self._elapsed = max(clock() - self._began, 1e-9)
        self._used = time.process_time() - self._cpu

    async def __aenter__(self) -> Watch:
        self.begin()
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        if self._task:
            self._task.cancel()

    def health(self, records: Sequence[RequestRecord]) -> ClientHealth:
        """What was found, after the block."""
        sent = [record.sent - record.request.intended for record in records if record.sent]
        loop_lag, send_lag = _p99_ms(self._lags), _p99_ms(sent)
        return ClientHealth.of(loop_lag, send_lag, self._used / self._elapsed)

    async def _sample(self) -> None:
        while True:
            due = clock() + _SAMPLE_EVERY
            await asyncio.sleep(_SAMPLE_EVERY)
            if not self._ended:
                self._lags.append(clock() - due)


def _p99_ms(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 99)) * 1000 if len(seconds) else 0.0
