"""What is served, the graph in its paged form, computes what transformers computes.

Sequences are prefilled in chunks, share steps with others, sit in scattered blocks and are
continued by several tokens at once, as prompts, batches, caches and drafts have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paged_engine.runner import Row, Runner
from test_graph_against_transformers import CASES, COMMON, write_model

from toolkit.engine.openvino import compile_checkpoint
from toolkit.progress import Silent

BLOCK = 32
LENGTHS = (75, 40, 9)
TABLES = ((9, 2, 11), (4, 7), (0,))
STEPS: tuple[tuple[tuple[int, int, int, int], ...], ...] = (
    ((0, 0, 33, 0), (1, 0, 17, 0)),  # only beginnings of prompts: no logits at all
    ((1, 17, 31, 1), (0, 33, 70, 2), (2, 0, 8, 1)),
    ((0, 70, 71, 1), (1, 31, 36, 5), (2, 8, 9, 1)),
    ((1, 36, 40, 4), (0, 71, 75, 4)),
)
"""Rows of each step: sequence, first new token, end of new tokens, logits wanted."""


@pytest.fixture(scope="module")
def ids() -> list[Any]:
    draw = np.random.default_rng(11)
    return [draw.integers(0, COMMON["vocab_size"], length) for length in LENGTHS]


def built(name: str, folder: Path, kv_precision: str) -> tuple[Any, Runner]:
    """The transformers model and the runner over its compiled form."""
    family, overrides = CASES[name]
    model = write_model(family, overrides, folder / "checkpoint")
    (folder / "engine").mkdir()
    compile_checkpoint(folder / "checkpoint", folder / "engine", progress=Silent())
    runner = Runner(
        folder / "engine" / "openvino_model.xml",
        kv_precision=kv_precision,
        precision="f32",
        threads=1,
    )
    runner.allocate(12)
    return model, runner


def compare(model: Any, runner: Runner, ids: list[Any], tolerance: float) -> None:
    with torch.no_grad():
        expected = [model(torch.from_numpy(each[None])).logits[0].numpy() for each in ids]
    for step in STEPS:
        rows = [
            Row(ids[n][start:end].tolist(), start, TABLES[n][: -(-end // BLOCK)], wanted)
            for n, start, end, wanted in step
        ]
        got = runner.run(rows)
        wanted = [expected[n][end - count : end] for n, _, end, count in step]
        np.testing.assert_allclose(got, np.concatenate(wanted), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_those_of_transformers(name: str, ids: list[Any], tmp_path: Path) -> None:
    model, runner = built(name, tmp_path, "f32")
    assert runner.tokens_per_block == BLOCK
    compare(model, runner, ids, 2e-3)


@pytest.mark.parametrize(("precision", "tolerance"), [("f16", 0.01), ("u8", 0.3)])
def test_smaller_caches_cost_some_exactness(
    precision: str, tolerance: float, ids: list[Any], tmp_path: Path
) -> None:
    model, runner = built("llama", tmp_path, precision)
    compare(model, runner, ids, tolerance)


@pytest.mark.parametrize(("precision", "kv_cache"), [("f16", "none"), ("u8", "fp8")])
def test_a_block_is_as_large_as_planned(precision: str, kv_cache: str, tmp_path: Path) -> None:
    from toolkit.capacity.host import fit_host
    from toolkit.checkpoint.architecture import read_architecture
    from toolkit.quantize.check import check
    from toolkit.spec.models import Engine, Quantization

    _, runner = built("qwen3 wide heads", tmp_path, precision)
    arch = read_architecture(tmp_path / "checkpoint")
    limits = {"max_batch_size": 1, "max_input_len": 10, "max_seq_len": 64}
    resolved = check(arch, Quantization.model_validate({"kv_cache": kv_cache}))
    plan = fit_host(Engine.model_validate({"limits": limits}), resolved, arch, available=2**33)
    assert plan.kv_bytes_per_token * BLOCK == runner.block_bytes
