"""A GPU's memory as a sum: what is fixed, and what is left for the KV cache."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.spec.gpus import Gpu

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Line:
    """One term of the sum.

    Attributes:
        bytes: Of the fullest GPU of the replica.
        how: The formula or the source, in words.
    """

    name: str
    bytes: int
    how: str

    def __str__(self) -> str:
        return f"{self.name:<28} {self.bytes / _GIB:8.2f} GiB  {self.how}"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How the fullest GPU of a replica is used.

    Attributes:
        fixed: Everything but the KV cache.
        pool: Bytes of the KV cache, all of it on this GPU.
        kv_bytes_per_token: Of this GPU, target and draft together.
        sequence_tokens: Tokens of the longest request, whole blocks, drafts counted.
        tokens_per_block: Tokens of one block.
        max_batch_size: Requests that may be in flight.
        notes: What is worth knowing although it fits.
    """

    gpu: Gpu
    fixed: tuple[Line, ...]
    pool: int
    kv_bytes_per_token: float
    sequence_tokens: int
    tokens_per_block: int
    max_batch_size: int
    notes: tuple[str, ...] = field(default=())

    @property
    def used(self) -> int:
        """Bytes of everything but the KV cache."""
        return sum(line.bytes for line in self.fixed)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, in whole blocks."""
        if self.pool <= 0:
            return 0
        return _whole(int(self.pool / self.kv_bytes_per_token), self.tokens_per_block)

    @property
    def full_requests(self) -> int:
        """Requests of the greatest length that fit into the KV cache at once."""
        return self.kv_tokens // self.sequence_tokens

    @property
    def fits(self) -> bool:
        """Whether at least one request of the greatest length fits."""
        return self.full_requests >= 1

    def lines(self) -> list[str]:
        """The sum, one term a line; the last is the total."""
        kv, pool = self.kv_bytes_per_token, max(self.pool, 0)
        left = self.gpu.memory - self.used - pool
        how = "engine.kv_cache.free_memory_fraction or size" if left >= 0 else "missing"
        terms = [
            *self.fixed,
            Line("KV cache", pool, f"{self.kv_tokens} tokens of {kv:.0f} bytes"),
            Line("left over", left, how),
            Line(f"{self.gpu.name} has", self.gpu.memory, "as its driver reports it"),
        ]
        return [str(term) for term in terms]


def _whole(tokens: int, block: int) -> int:
    return tokens // block * block
