"""Prometheus text as typed samples, and what the toolkit reads from a Triton's metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    """One value of one family."""

    family: str
    labels: tuple[tuple[str, str], ...]
    value: float

    def label(self, name: str) -> str:
        """The value of label ``name``; empty if there is none."""
        return dict(self.labels).get(name, "")


class Metrics:
    """All samples of one scrape."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = tuple(samples)
        self.families = frozenset(sample.family for sample in self.samples)

    def value(self, family: str, **labels: str) -> float | None:
        """Sum over the samples of ``family`` that carry all ``labels``; None without any."""
        found = [
            sample.value
            for sample in self.samples
            if sample.family == family
            and all(sample.label(name) == value for name, value in labels.items())
        ]
        return sum(found) if found else None


def parse(text: str) -> Metrics:
    """Parse the Prometheus text format; comments and malformed lines are skipped."""
    samples = []
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match:
            try:
                value = float(match[3])
            except ValueError:
                continue
            samples.append(Sample(match[1], tuple(_LABEL.findall(match[2] or "")), value))
    return Metrics(samples)


REQUESTS = "nv_trt_llm_request_metrics"
KV_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
GENERAL = "nv_trt_llm_general_metrics"


@dataclass(frozen=True)
class Load:
    """What the engine of a server is doing; None where its runtime does not tell.

    ``kv_cache_use`` is the share of blocks in use, 0 to 1; ``iterations`` counts engine steps.
    """

    running: float | None
    waiting: float | None
    kv_cache_use: float | None
    iterations: float | None

    @staticmethod
    def of(metrics: Metrics) -> Load:
        """Read the families of the TensorRT-LLM backend, which every runtime exposes."""
        used = metrics.value(KV_BLOCKS, kv_cache_block_type="used")
        most = metrics.value(KV_BLOCKS, kv_cache_block_type="max")
        active = metrics.value(REQUESTS, request_type="active")
        waiting = metrics.value(REQUESTS, request_type="waiting")
        scheduled = metrics.value(REQUESTS, request_type="scheduled")
        return Load(
            running=scheduled if scheduled is not None else active,
            waiting=waiting,
            kv_cache_use=used / most if used is not None and most else None,
            iterations=metrics.value(GENERAL, general_type="iteration_counter"),
        )
