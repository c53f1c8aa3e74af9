"""Which request goes next, and to which replica: pure, deterministic, with the caller's clock.

:class:`Scheduler` is told what happens (a request comes, a token comes, a replica fails) and
answers what to do. It sleeps nowhere, reads no clock and sends nothing, so that the simulator and
the server run the very same decisions.
"""

from toolkit.gateway.scheduling.prefixes import block_hashes
from toolkit.gateway.scheduling.scheduler import Scheduler
from toolkit.gateway.scheduling.tickets import (
    Assignment,
    ModelState,
    Overdue,
    Refusal,
    ReplicaLoad,
    ReplicaSpec,
    ReplicaState,
    Snapshot,
    Ticket,
)

__all__ = [
    "Assignment",
    "ModelState",
    "Overdue",
    "Refusal",
    "ReplicaLoad",
    "ReplicaSpec",
    "ReplicaState",
    "Scheduler",
    "Snapshot",
    "Ticket",
    "block_hashes",
]
