"""How many KV blocks an engine takes: what its limits need, within what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from paged_engine import load
from paged_engine.config import EngineConfig
from paged_engine.memory import free_memory

from toolkit.capacity.host import available_memory

MIB = 2**20
BLOCK = MIB
"""Bytes of a block; a sequence of the test's limits has four."""


def config(**more: object) -> EngineConfig:
    settings = {
        "max_batch_size": 8,
        "max_input_len": 100,
        "max_seq_len": 128,
        "kv_cache_fraction": 0.5,
    }
    return EngineConfig(**{**settings, **more})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "free_memory", lambda: 1000 * MIB)
    monkeypatch.delenv("TOOLKIT_KV_CACHE_SCALE", raising=False)


def test_full_batches_of_the_longest_sequences_fit() -> None:
    assert load._block_count(config(), BLOCK) == 8 * 4


def test_a_given_size_counts_for_target_and_draft_together() -> None:
    assert load._block_count(config(kv_cache_bytes=10 * MIB), BLOCK) == 10
    assert load._block_count(config(kv_cache_bytes=10 * MIB), 2 * BLOCK) == 5


def test_no_more_is_taken_than_the_share_of_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "free_memory", lambda: 20 * MIB)
    assert load._block_count(config(), BLOCK) == 10
    assert load._block_count(config(kv_cache_bytes=900 * MIB), BLOCK) == 10


def test_the_supervisor_shrinks_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_KV_CACHE_SCALE", "0.5")
    assert load._block_count(config(), BLOCK) == 16


def test_a_pool_that_cannot_hold_one_sequence_is_refused() -> None:
    assert load._block_count(config(kv_cache_bytes=4 * MIB), BLOCK) == 4
    with pytest.raises(ValueError, match=r"holds 3 blocks.*needs 4"):
        load._block_count(config(kv_cache_bytes=4 * MIB - 1), BLOCK)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8192 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


BOTH = pytest.mark.parametrize("look", [free_memory, available_memory])
"""What the engine takes, and what is planned before it is built."""
V2, V1 = "sys/fs/cgroup/", "sys/fs/cgroup/memory/"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8 * MIB),
        ({V2 + "memory.max": "max\n", V2 + "memory.current": "5\n"}, 8 * MIB),
        (
            {
                V2 + "memory.max": f"{6 * MIB}\n",
                V2 + "memory.current": f"{3 * MIB}\n",
                V2 + "memory.stat": f"anon 5\ninactive_file {MIB}\nactive_file 9\n",
            },
            4 * MIB,
        ),
        ({V2 + "memory.max": f"{99 * MIB}", V2 + "memory.current": "0"}, 8 * MIB),
        (
            {
                V1 + "memory.limit_in_bytes": f"{6 * MIB}\n",
                V1 + "memory.usage_in_bytes": f"{5 * MIB}\n",
                V1 + "memory.stat": f"inactive_file 7\ntotal_inactive_file {MIB}\n",
            },
            2 * MIB,
        ),
        ({V1 + "memory.limit_in_bytes": str(2**63 - 4096)}, 8 * MIB),
    ],
)
@BOTH
def test_a_containers_limit_counts(
    look: Callable[[Path], int], files: dict[str, str], free: int, tmp_path: Path
) -> None:
    assert look(machine(tmp_path, files)) == free


@BOTH
def test_a_kernel_that_does_not_say_is_an_error(
    look: Callable[[Path], int], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="MemAvailable"):
        look(machine(tmp_path, {"proc/meminfo": "MemTotal: 9 kB\n"}))
