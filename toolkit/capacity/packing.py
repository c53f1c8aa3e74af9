"""Several models on one machine: which GPUs each replica gets, and how KV memory is shared.

Nothing is moved at run time: what is placed stays where it is. Replicas go in decreasing size to
the first GPUs with room (first-fit decreasing), those of several GPUs first, onto GPUs of their
own. A single GPU may hold several models; how generously their KV caches are reckoned decides how
many. At first each is to hold all requests of its limits at once, then half of that, and so on
down to one request of the greatest length: the first of these levels at which everything has a
place counts, and what it leaves of a GPU's KV memory is shared out among its models. Before the
last level refuses, other arrangements are searched for, some thousands of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.capacity.host import HostPlan
from toolkit.capacity.placing import Demand, Holder, Unplaced, budget, place
from toolkit.capacity.plan import MemoryPlan
from toolkit.spec.models import Engine

LEVELS = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 0.0)
"""Shares of a model's limits that its KV cache is to hold at once; 0 is a single request."""

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Share:
    """One replica's part of one GPU; ``replica`` counts from 0."""

    name: str
    replica: int
    fixed: int
    pool: int
    tokens: int


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Who uses one GPU, in bytes."""

    gpu: int
    memory: int
    shares: tuple[Share, ...]

    @property
    def used(self) -> int:
        """Of all its replicas, KV caches included."""
        return sum(share.fixed + share.pool for share in self.shares)

    @property
    def left(self) -> int:
        """What nobody has been promised."""
        return self.memory - self.used


@dataclass(frozen=True, slots=True)
class Grant:
    """What one model is told.

    Attributes:
        gpus: Its GPUs, replica by replica.
        pool: Bytes of its KV cache on each of them, where it shares one; else None: its file's
            own setting holds. An engine takes the smaller of its size and its fraction of what it
            finds free. Started first, the size holds it back; started last, it still finds so
            much that its file's fraction of it is no less than the size.
    """

    name: str
    gpus: tuple[int, ...]
    pool: int | None


@dataclass(frozen=True, slots=True)
class Packing:
    """A place for everything; ``level`` is the one of :data:`LEVELS` that it was found at."""

    gpus: tuple[GpuUse, ...]
    grants: tuple[Grant, ...]
    level: float

    def grant(self, name: str) -> Grant:
        """That of one model."""
        return next(grant for grant in self.grants if grant.name == name)


@dataclass(frozen=True, slots=True)
class Misfit:
    """The replica that has no place, at the least generous level.

    Attributes:
        replica: Counts from 0: as many of the model were placed before it.
        needed: Bytes on each of its GPUs, KV cache for one request included.
        missing: Bytes that the GPU with the most room lacks for a replica of one GPU; None where
            no GPU may hold it, whatever its size, and for a replica of several.
        whole: GPUs that nobody uses.
        gpus: Who has what, the others' KV caches at their least.
    """

    demand: Demand
    replica: int
    needed: int
    missing: int | None
    whole: int
    gpus: tuple[GpuUse, ...]


def demand_of(
    name: str, memory: MemoryPlan | HostPlan, engine: Engine, *, replicas: int, gpus: int
) -> Demand:
    """The demand of a model whose memory sum is known.

    Args:
        engine: The section that the sum is of.
        gpus: Of one replica; 1 for a machine without.
    """
    cache = engine.kv_cache
    least = math.ceil(memory.sequence_tokens * memory.kv_bytes_per_token)
    sized = cache.size is not None
    return Demand(
        name=name,
        replicas=replicas,
        gpus=gpus,
        fixed=memory.used,
        least=memory.pool if sized else least,
        most=memory.pool if sized else least * engine.limits.max_batch_size,
        alone=memory.pool,
        bytes_per_token=memory.kv_bytes_per_token,
        block=memory.tokens_per_block,
        fraction=cache.free_memory_fraction,
        sized=sized,
    )


def pack(
    demands: Sequence[Demand], gpus: Sequence[int], memory: int, *, search: bool = True
) -> Packing | Misfit:
    """Give every replica its GPUs, or tell which one has none.

    The same whatever the order of ``demands``.

    Args:
        demands: Of models with different names, each of which fits into a GPU of its own.
        gpus: Numbers of the machine's GPUs.
        memory: Bytes of each.
        search: Look for other arrangements before refusing, for a second or so.
    """
    numbers = sorted(gpus)
    *generous, least = LEVELS
    for level in generous:
        placed = place(demands, numbers, memory, level, search=False)
        if not isinstance(placed, Unplaced):
            return _packing(demands, placed, memory, level)
    placed = place(demands, numbers, memory, least, search=search)
    if isinstance(placed, Unplaced):
        return _misfit(placed, memory)
    return _packing(demands, placed, memory, least)


def _misfit(unplaced: Unplaced, memory: int) -> Misfit:
    demand, gpus = unplaced.demand, unplaced.gpus
    least = {each.name: each.least for gpu in gpus for each in gpu.models}
    return Misfit(
        demand=demand,
        replica=unplaced.replica,
        needed=demand.fixed + demand.least,
        missing=_missing(demand, gpus, memory),
        whole=sum(not gpu.held for gpu in gpus),
        gpus=tuple(_use(gpu, least, memory) for gpu in gpus),
    )


def _missing(demand: Demand, gpus: Sequence[Holder], memory: int) -> int | None:
    lacks = []
    for gpu in gpus if demand.gpus == 1 else ():
        if gpu.may_take(demand):
            together = [*gpu.models, demand]
            caches = sum(each.least for each in together)
            fixed = sum(each.fixed for each in together)
            lacks.append(fixed + math.ceil(caches / min(e.fraction for e in together)) - memory)
    return min(lacks, default=None)


def _packing(
    demands: Sequence[Demand], gpus: Sequence[Holder], memory: int, level: float
) -> Packing:
    shared = {each.name for gpu in gpus if len(gpu.held) > 1 for each in gpu.models}
    pools = {each.name: each.alone for each in demands}
    for gpu in gpus:
        # A model is told one size, whatever its GPUs: that of the one with the least.
        if len(gpu.held) > 1:
            parts = _shared_out(gpu.models, memory)
            pools |= {name: min(pools[name], part) for name, part in parts.items()}
    uses = tuple(_use(gpu, pools, memory) for gpu in gpus)
    grants = [
        Grant(
            each.name,
            _gpus_of(each, gpus),
            pools[each.name] if each.name in shared else None,
        )
        for each in sorted(demands, key=lambda each: each.name)
    ]
    return Packing(uses, tuple(grants), level)


def _gpus_of(demand: Demand, gpus: Sequence[Holder]) -> tuple[int, ...]:
    """Replica by replica, as ``serving.gpus`` has them."""
    held = [(replica, gpu.number) for gpu in gpus for each, replica in gpu.held if each is demand]
    return tuple(number for _, number in sorted(held))


def _shared_out(together: Sequence[Demand], memory: int) -> dict[str, int]:
    """The KV memory of a shared GPU: what each needs at least, the rest by what they could use."""
    spare = budget(together, memory) - sum(each.least for each in together)
    weights = {each.name: 0 if each.sized else max(each.most - each.least, 1) for each in together}
    total = sum(weights.values()) or 1
    parts = {}
    for each in together:
        part = each.least + spare * weights[each.name] // total
        # A round number, to be read in a command, unless one request would no longer fit.
        parts[each.name] = max(part // _MIB * _MIB, each.least)
    return parts


def _use(gpu: Holder, pools: Mapping[str, int], memory: int) -> GpuUse:
    shares = [
        Share(each.name, replica, each.fixed, pools[each.name], each.tokens(pools[each.name]))
        for each, replica in gpu.held
    ]
    return GpuUse(gpu.number, memory, tuple(shares))
