"""Which replica: the least loaded, or the one that remembers, as long as that stays fair.

Affinity is bounded: a replica that is loaded by more than a quarter above the least loaded one,
and a quarter of its slots on top, gets nothing for what it remembers. So a beginning that
everybody shares spreads over all replicas, each of which then remembers it.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.gateway.scheduling.replica import Job, Replica

OVERLOAD = 1.25
_SLOTS_SHARE = 4


def choose(
    fitting: Sequence[Replica], everyone: Sequence[Replica], job: Job, *, affinity: bool
) -> Replica:
    """Of the replicas where the job fits, the best; ``everyone`` says what load is usual."""
    if len(fitting) == 1:
        return fitting[0]
    loads = {replica.spec.id: replica.load_s() for replica in everyone}
    if affinity and job.ticket.prefix:
        usual = OVERLOAD * min(loads.values())
        best: tuple[int, float] = (0, 0.0)
        home: Replica | None = None
        for replica in fitting:
            load = loads[replica.spec.id]
            spare = replica.pace.seconds(job.cost_s) * replica.spec.slots / _SLOTS_SHARE
            cached = replica.cached_tokens(job.ticket)
            if cached and load <= usual + spare and (cached, -load) > best:
                best, home = (cached, -load), replica
        if home is not None:
            return home
    return min(fitting, key=lambda r: (loads[r.spec.id], r.load.kv_use or 0.0, r.spec.id))
