"""A request class as the scheduler uses it: seconds instead of the deployment file's units."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.spec.gateway import RequestClass


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """Share, targets and limits of one class; None means without."""

    name: str
    weight: float
    ttft_s: float | None
    max_wait_s: float | None
    max_queued: int
    max_running: int | None

    @classmethod
    def of(cls, name: str, written: RequestClass) -> ClassPolicy:
        """The class as the deployment file has it."""
        return cls(
            name=name,
            weight=float(written.weight),
            ttft_s=None if written.ttft_ms is None else written.ttft_ms / 1000,
            max_wait_s=written.max_wait,
            max_queued=written.max_queued,
            max_running=written.max_running,
        )
