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
    one process can use 1.0.
    """

    loop_lag_p99_ms: float
    send_lag_p99_ms: float
    cpu_share: float
    saturated: bool
    reasons: tuple[str, ...] = ()


class Watch:
    """Measures the client while its block runs (``async with``)."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        self._began, self._cpu = clock(), time.process_time()
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._elapsed = max(clock() - self._began, 1e-9)
        self._cpu = time.process_time() - self._cpu
        if self._task:
            self._task.cancel()

    def health(self, records: Sequence[RequestRecord]) -> ClientHealth:
        """What was found, after the block."""
        sent = [record.sent - record.request.intended for record in records if record.sent]
        loop_lag, send_lag = _p99_ms(self._lags), _p99_ms(sent)
        share = self._cpu / self._elapsed
        reasons = []
        if loop_lag > _LAG_LIMIT_MS:
            reasons.append(f"its event loop ran {loop_lag:.0f} ms late (p99)")
        if send_lag > _LAG_LIMIT_MS:
            reasons.append(f"it sent requests {send_lag:.0f} ms late (p99)")
        if share > _CPU_LIMIT:
            reasons.append(f"it used {share:.0%} of a processor core")
        return ClientHealth(
            loop_lag_p99_ms=loop_lag,
            send_lag_p99_ms=send_lag,
            cpu_share=share,
            saturated=bool(reasons),
            reasons=tuple(reasons),
        )

    async def _sample(self) -> None:
        while True:
            due = clock() + _SAMPLE_EVERY
            await asyncio.sleep(_SAMPLE_EVERY)
            self._lags.append(clock() - due)


def _p99_ms(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 99)) * 1000 if len(seconds) else 0.0
