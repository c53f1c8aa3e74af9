"""Which number formats compute on which GPUs, in which runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import Field

from toolkit.releases.entries import Entry, Runtime

Weights: TypeAlias = Literal["none", "fp8", "int4_awq", "w4a8_awq", "int8_sq", "nvfp4"]
KvCache: TypeAlias = Literal["none", "fp8", "int8", "nvfp4"]
Capability: TypeAlias = tuple[int, int]

# Among alternatives: what computes fastest at little loss, first.
_PREFERENCE: tuple[Weights, ...] = ("fp8", "nvfp4", "w4a8_awq", "int4_awq", "int8_sq", "none")


class FormatSupport(Entry):
    """What one runtime computes with on one compute capability.

    Attributes:
        name: ``runtime.major.minor``.
        kv_cache_needs: Weight formats that a KV-cache format works with; all if absent.
        cautions: Formats that are documented to work and are known to fail for some models.
    """

    name: str
    runtime: Runtime
    capability: Capability
    architecture: str
    weights: tuple[Weights, ...]
    kv_cache: tuple[KvCache, ...]
    kv_cache_needs: dict[str, tuple[Weights, ...]] = Field(default_factory=dict)
    cautions: dict[str, str] = Field(default_factory=dict)

    def refusal(self, weights: Weights, kv_cache: KvCache) -> str | None:
        """Why the pair does not work; None if it does."""
        place = (
            f"compute capability {self.capability[0]}.{self.capability[1]} ({self.architecture})"
        )
        if weights not in self.weights:
            return f"the {self.runtime} runtime has no {weights} weights on {place}"
        if kv_cache not in self.kv_cache:
            return f"the {self.runtime} runtime has no {kv_cache} KV cache on {place}"
        needed = self.kv_cache_needs.get(kv_cache)
        if needed and weights not in needed:
            return f"a {kv_cache} KV cache works with {' or '.join(needed)} weights only"
        return None


@dataclass(frozen=True, slots=True)
class Combination:
    """A runtime with number formats that work together."""

    runtime: Runtime
    weights: Weights
    kv_cache: KvCache

    def __str__(self) -> str:
        return f"{self.weights} weights with {self.kv_cache} KV cache ({self.runtime})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a combination works.

    Attributes:
        ok: It does, as far as upstream documents it.
        reason: Why not; empty if it does.
        alternatives: What works instead: without a caution first, then the nearest.
        caution: What is known to go wrong although it is documented.
    """

    ok: bool
    reason: str = ""
    alternatives: tuple[Combination, ...] = ()
    caution: str | None = None


def judge(
    rows: Sequence[FormatSupport],
    wanted: Combination,
    capability: Capability,
    *,
    version: str,
) -> Verdict:
    """Whether ``wanted`` computes on a GPU of ``capability``, from one release's rows."""
    of_runtime = [row for row in rows if row.runtime == wanted.runtime]
    if not of_runtime:
        reason = f"TensorRT-LLM {version} has no {wanted.runtime} runtime"
        return Verdict(False, reason, _alternatives(rows, wanted, capability))
    here = next((row for row in of_runtime if row.capability == capability), None)
    if here is None:
        known = ", ".join(f"{row.capability[0]}.{row.capability[1]}" for row in of_runtime)
        reason = (
            f"compute capability {capability[0]}.{capability[1]} is not among those of "
            f"TensorRT-LLM {version} ({known})"
        )
        return Verdict(False, reason)
    refusal = here.refusal(wanted.weights, wanted.kv_cache)
    if refusal:
        return Verdict(False, refusal, _alternatives(rows, wanted, capability))
    return Verdict(True, caution=_caution(here, wanted))


def _caution(row: FormatSupport, wanted: Combination) -> str | None:
    """What the row says of the pair's parts."""
    parts = (f"weights.{wanted.weights}", f"kv_cache.{wanted.kv_cache}")
    return "; ".join(row.cautions[part] for part in parts if part in row.cautions) or None


def _alternatives(
    rows: Sequence[FormatSupport], wanted: Combination, capability: Capability
) -> tuple[Combination, ...]:
    by_runtime = {row.runtime: row for row in rows if row.capability == capability}

    def distance(found: Combination) -> tuple[bool, int, int]:
        changes = (
            4 * (found.weights != wanted.weights)
            + 2 * (found.kv_cache != wanted.kv_cache)
            + (found.runtime != wanted.runtime)
        )
        # What is known to go wrong is no advice where something else works.
        doubtful = _caution(by_runtime[found.runtime], found) is not None
        return doubtful, changes, _PREFERENCE.index(found.weights)

    return tuple(sorted(_working(rows, capability), key=distance))[:5]


def _working(rows: Sequence[FormatSupport], capability: Capability) -> Iterator[Combination]:
    for row in rows:
        if row.capability != capability:
            continue
        for weights in row.weights:
            for kv_cache in row.kv_cache:
                if row.refusal(weights, kv_cache) is None:
                    yield Combination(row.runtime, weights, kv_cache)
