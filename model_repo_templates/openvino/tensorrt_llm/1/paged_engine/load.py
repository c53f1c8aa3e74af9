"""Put an engine together from settings and a compiled model's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .blocks import BlockPool
from .config import EngineConfig
from .engine import PagedEngine
from .memory import free_memory
from .proposers import DraftModelProposer, NGramProposer, NoProposer, Proposer
from .runner import Runner
from .scheduler import Scheduler


def create(settings: Mapping[str, Any], engine_dir: Path) -> PagedEngine:
    """An engine that is not started yet.

    ``engine_dir`` holds ``openvino_model.xml`` and, for draft-model speculation,
    ``draft/openvino_model.xml``. The environment variable ``TOOLKIT_KV_CACHE_SCALE``
    (0 to 1) shrinks the KV pool: a supervisor sets it after an out-of-memory crash.

    Raises:
        ValueError: settings that cannot work, or a pool too small for one sequence.
    """
    config = EngineConfig.from_mapping(settings)
    runner = _runner(engine_dir, config)
    runners = [runner]
    proposer: Proposer = NoProposer()
    if config.speculation == "ngram":
        proposer = NGramProposer(config.max_matching_ngram_size)
    elif config.speculation == "draft_model":
        runners.append(_runner(engine_dir / "draft", config))
        proposer = DraftModelProposer(runners[1], config.tokens_per_block)
    count = _block_count(config, sum(each.block_bytes for each in runners))
    for each in runners:
        each.allocate(count)
    pool = BlockPool(count, config.tokens_per_block, reuse=config.kv_cache_reuse)
    return PagedEngine(config, Scheduler(config, pool), runner, proposer)


def _runner(folder: Path, config: EngineConfig) -> Runner:
    runner = Runner(
        folder / "openvino_model.xml",
        kv_precision=config.kv_cache_precision,
        precision=config.inference_precision,
        threads=config.threads,
    )
    if runner.tokens_per_block != config.tokens_per_block:
        raise ValueError(
            f"tokens_per_block is {config.tokens_per_block}, "
            f"the CPU's paged attention uses {runner.tokens_per_block}"
        )
    return runner


def _block_count(config: EngineConfig, block_bytes: int) -> int:
    """Blocks that the limits need, within the given size and the memory that is there."""
    per_sequence = -(-config.max_seq_len // config.tokens_per_block)
    wanted = config.max_batch_size * per_sequence
    if config.kv_cache_bytes is not None:
        wanted = config.kv_cache_bytes // block_bytes
    affordable = int(free_memory() * config.kv_cache_fraction) // block_bytes
    scale = float(os.environ.get("TOOLKIT_KV_CACHE_SCALE", "1"))
    count = int(min(wanted, affordable) * scale)
    if count < per_sequence:
        raise ValueError(
            f"the KV cache holds {count} blocks of {config.tokens_per_block} tokens, one sequence "
            f"of max_seq_len needs {per_sequence}: raise kv_cache.size or lower max_seq_len"
        )
    return count
