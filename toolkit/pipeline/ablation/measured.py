"""The deployment as it is measured: alone on this machine, under a name of its own."""

from __future__ import annotations

from typing import Any

from toolkit.pipeline.ablation.features import changed
from toolkit.spec.models import Deployment

SUFFIX = "-ablation"
_LONGEST_NAME = 63


def as_measured(deployment: Deployment, users: int) -> Deployment:
    """``deployment`` with what a measurement needs, and else as it is.

    It gets a name, ports and a run directory of its own, and listens on this machine only.
    Nobody is refused for having waited: queues hold ``users`` requests and deadlines go,
    because the lower rungs make requests wait long, which is what is to be seen.
    """
    queue = max(deployment.engine.batching.max_queue_size, users)
    changes: dict[str, Any] = {
        "name": deployment.name[: _LONGEST_NAME - len(SUFFIX)] + SUFFIX,
        "engine": {"batching": {"max_queue_size": queue, "queue_timeout": None}},
        "serving": {
            "host": "127.0.0.1",
            "ports": {"http": 0, "grpc": 0, "metrics": 0},
            "default_deadline": None,
        },
        "gateway": {
            "host": "127.0.0.1",
            "port": 0,
            "replicas": (),
            "keys": None,
            "tls": None,
            "traces": None,
        },
        "scheduling": {"classes": _patient(deployment, users)},
    }
    return changed(deployment, changes)


def _patient(deployment: Deployment, users: int) -> dict[str, Any]:
    classes = deployment.scheduling.classes
    return {
        name: {
            **one.model_dump(exclude_unset=True),
            "max_wait": None,
            "max_queued": max(one.max_queued, users),
        }
        for name, one in classes.items()
    }
