"""Which GPUs each replica has, counted among those that the server sees."""

from __future__ import annotations

from toolkit.spec.models import Deployment


def gpu_lists(deployment: Deployment) -> tuple[tuple[int, ...], ...]:
    """One list for each replica, without a GPU in common.

    Numbers count from 0 among ``serving.gpus``: a container numbers its GPUs anew, and so does
    ``CUDA_VISIBLE_DEVICES``.
    """
    each = deployment.engine.parallelism.world_size
    count = deployment.serving.replicas
    return tuple(tuple(range(first * each, (first + 1) * each)) for first in range(count))


def gpu_device_ids(deployment: Deployment) -> str:
    """As Triton's parameter has it: GPUs apart by a comma, replicas by a semicolon."""
    return ";".join(",".join(map(str, gpus)) for gpus in gpu_lists(deployment))
