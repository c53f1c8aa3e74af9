"""What this machine's processor reads and computes a second, measured in a moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

_BYTES = 2**28
_WIDTH = 1024
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class HostSpeed:
    """Bytes a second read from memory, and operations a second of float32 matrix products."""

    bandwidth: float
    rate: float


def measure_host() -> HostSpeed:
    """Measure both with all processors this process may use, the best of a few rounds.

    The arrays are larger than a cache, so that memory is measured. Takes about a second.
    """
    import numpy as np

    cores = len(os.sched_getaffinity(0))
    parts = [np.ones(_BYTES // 4 // cores, dtype=np.float32) for _ in range(cores)]
    left = np.ones((_WIDTH, _WIDTH), dtype=np.float32)
    with ThreadPoolExecutor(cores) as pool:
        # max() has no multiplication to wait for and lets go of the interpreter's lock.
        reading = _best(lambda: list(pool.map(np.max, parts)))
    computing = _best(lambda: left @ left)
    return HostSpeed(sum(part.nbytes for part in parts) / reading, 2 * _WIDTH**3 / computing)


def _best(act: Callable[[], object]) -> float:
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return min(times)
