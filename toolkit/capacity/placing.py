"""Which GPUs each replica gets: in decreasing size to the first with room, else by search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_STEPS = 4000
"""Placements that a search tries before it gives up: about a second with 16 GPUs."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What each replica of one model takes of each of its GPUs, in bytes.

    Attributes:
        name: Unique among the models.
        gpus: Whole GPUs of a replica; only a replica of one shares it.
        fixed: Everything but the KV cache.
        least: KV cache for one request of the greatest length.
        most: KV cache for as many of those as the limits allow.
        alone: KV cache where the GPU is the replica's own, as its file sets it.
        bytes_per_token: Of the KV cache.
        block: Tokens that are allotted at once.
        fraction: Of the memory that may become KV cache, of what the fixed part leaves.
        sized: Its file fixes the size of its KV cache.
    """

    name: str
    replicas: int
    gpus: int
    fixed: int
    least: int
    most: int
    alone: int
    bytes_per_token: float
    block: int
    fraction: float
    sized: bool = False

    def tokens(self, pool: int) -> int:
        """Tokens that ``pool`` bytes hold, in whole blocks."""
        return int(pool / self.bytes_per_token) // self.block * self.block

    def wanted(self, level: float) -> int:
        """Bytes of the KV cache at one of :data:`LEVELS`."""
        return max(self.least, int(self.most * level))


@dataclass(slots=True)
class Holder:
    """A GPU while it is filled: replicas, each with its number among those of its model."""

    number: int
    held: list[tuple[Demand, int]]

    @property
    def models(self) -> list[Demand]:
        """Those that it holds a replica of."""
        return [each for each, _ in self.held]

    def may_take(self, demand: Demand) -> bool:
        """Whether the two may share it at all: replicas of one server have GPUs of their own."""
        together = [*self.models, demand]
        alone = all(each.gpus == 1 for each in together)
        return not self.held or (alone and all(each.name != demand.name for each in self.models))


@dataclass(frozen=True, slots=True)
class Unplaced:
    """The first replica without a place; the others of ``gpus`` came before it."""

    demand: Demand
    replica: int
    gpus: list[Holder]


def place(
    demands: Sequence[Demand], numbers: Sequence[int], memory: int, level: float, *, search: bool
) -> list[Holder] | Unplaced:
    """Put every replica on its GPUs.

    Args:
        numbers: Of GPUs that have ``memory`` bytes each.
        level: How much of its KV cache each model asks for (:meth:`Demand.wanted`).
        search: Where first-fit decreasing finds no place, try other arrangements.
    """
    gpus = [Holder(number, []) for number in numbers]
    replicas = list(_decreasing(demands, level))
    for demand, replica in replicas:
        chosen = _room(demand, gpus, memory, level)
        if chosen is None:
            refused = Unplaced(demand, replica, gpus)
            # Whole GPUs are all alike: no other arrangement has more of them.
            found = demand.gpus == 1 and search and _searched(replicas, numbers, memory, level)
            return found or refused
        for gpu in chosen:
            gpu.held.append((demand, replica))
    return gpus


def budget(together: Sequence[Demand], memory: int) -> int:
    """Bytes of a shared GPU that may become KV caches."""
    free = memory - sum(each.fixed for each in together)
    return int(free * min(each.fraction for each in together))


def _decreasing(demands: Sequence[Demand], level: float) -> Iterator[tuple[Demand, int]]:
    """The same whatever the order of ``demands``: equals are in the order of their names."""

    def size(demand: Demand) -> tuple[int, int, str]:
        return (-demand.gpus, -(demand.fixed + demand.wanted(level)), demand.name)

    for demand in sorted(demands, key=size):
        for replica in range(demand.replicas):
            yield demand, replica


def _room(
    demand: Demand, gpus: Sequence[Holder], memory: int, level: float
) -> Sequence[Holder] | None:
    if demand.gpus > 1:
        # Neighbours first: an NVLink bridge or a common switch joins adjacent numbers.
        empty = [gpu for gpu in gpus if not gpu.held]
        return empty[: demand.gpus] if len(empty) >= demand.gpus else None
    return next(([gpu] for gpu in gpus if _has_room(demand, gpu, memory, level)), None)


def _has_room(demand: Demand, gpu: Holder, memory: int, level: float) -> bool:
    if not gpu.held or not gpu.may_take(demand):
        return not gpu.held
    together = [*gpu.models, demand]
    return sum(each.wanted(level) for each in together) <= budget(together, memory)


def _searched(
    replicas: Sequence[tuple[Demand, int]], numbers: Sequence[int], memory: int, level: float
) -> list[Holder] | None:
    """Depth first over all arrangements, the largest replicas first; None if there is none."""
    if _volume(replicas, memory, level) > len(numbers) * memory:
        return None
    gpus = [Holder(number, []) for number in numbers]
    left = _STEPS

    def descend(index: int) -> bool:
        nonlocal left
        if index == len(replicas):
            return True
        demand, replica = replicas[index]
        for chosen in _choices(demand, gpus, memory, level):
            left -= 1
            if left < 0:
                return False
            for gpu in chosen:
                gpu.held.append((demand, replica))
            if descend(index + 1):
                return True
            for gpu in chosen:
                gpu.held.pop()
        return False

    return gpus if descend(0) else None


def _volume(replicas: Sequence[tuple[Demand, int]], memory: int, level: float) -> int:
    """Bytes that all take together at least, however they are arranged."""
    total = 0
    for each, _ in replicas:
        alone = each.fixed + int(each.wanted(level) / each.fraction)
        # What is too large to share a GPU takes one, and so does each part of a split model.
        total += memory * each.gpus if each.gpus > 1 else min(alone, memory)
    return total


def _choices(
    demand: Demand, gpus: Sequence[Holder], memory: int, level: float
) -> Iterator[Sequence[Holder]]:
    """Every GPU with room, but of those that hold the same models only the first."""
    if demand.gpus > 1:
        if chosen := _room(demand, gpus, memory, level):
            yield chosen
        return
    seen = set()
    for gpu in gpus:
        kind = frozenset(each.name for each in gpu.models)
        if kind not in seen and _has_room(demand, gpu, memory, level):
            seen.add(kind)
            yield [gpu]
