"""Triton's queue before the engine, from the deployment's batching and classes."""

from __future__ import annotations

from toolkit.repository.nvidia.view import QueueView
from toolkit.spec.models import Deployment

_MICROSECONDS = 1_000_000


def engine_queue(deployment: Deployment) -> QueueView:
    """Levels are the request classes, the heaviest first; a request without one is of the first
    class that the file lists.

    ``max_queue_size`` counts for each level; ``queue_timeout`` refuses who waited longer.
    """
    batching, classes = deployment.engine.batching, deployment.scheduling.classes
    order = sorted(classes, key=lambda name: -classes[name].weight)
    timeout = batching.queue_timeout
    return QueueView(
        preferred_batch_size=deployment.engine.limits.max_batch_size,
        max_queue_size=batching.max_queue_size,
        max_delay_us=round(batching.queue_delay * _MICROSECONDS),
        timeout_us=None if timeout is None else round(timeout * _MICROSECONDS),
        priority_levels=len(order) if len(order) > 1 else 0,
        default_level=order.index(next(iter(classes))) + 1 if len(order) > 1 else 0,
    )
