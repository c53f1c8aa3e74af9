"""Speculation in estimates: trees of drafts, and the heads of mixtures of experts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from model_shapes import LLAMA_8B
from plan_reports import report_of

from toolkit.bench.load import ClosedLoop
from toolkit.capacity.efficiency import TENSORRT_LLM
from toolkit.capacity.memory import fit
from toolkit.capacity.mixture import mixture_bytes, mixture_of, with_experts
from toolkit.capacity.search import make_replica
from toolkit.capacity.serving import Replica, decode_balance, speculation_gain, with_running
from toolkit.capacity.traffic import Traffic
from toolkit.checkpoint.architecture import Architecture, architecture_of
from toolkit.pipeline.calibrating import observations
from toolkit.pipeline.sizing import checked, drafted
from toolkit.quantize.check import check
from toolkit.spec.gpus import find_gpu
from toolkit.spec.models import Engine, Parallelism, Quantization

MIXTRAL: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden/models/mixtral-8x7b-instruct.json").read_text()
)
TREES: list[tuple[dict[str, Any], int, int]] = [
    ({"method": "eagle", "source": "./e"}, 4, 63),
    ({"method": "medusa", "source": "./m"}, 4, 63),
    ({"method": "medusa", "source": "./m", "num_heads": 2, "max_draft_len": 1}, 1, 1),
    ({"method": "lookahead", "window_size": 7, "ngram_size": 7, "verification_set_size": 7}, 6, 83),
    ({"method": "lookahead", "ngram_size": 1}, 0, 0),
    ({"method": "ngram", "max_draft_len": 5}, 5, 5),
    ({"method": "eagle3", "source": "./e", "max_draft_len": 3}, 3, 3),
]


def engine_of(speculation: dict[str, Any] | None, **more: Any) -> Engine:
    return Engine.model_validate({"speculation": speculation, **more})


def replica_of(engine: Engine, arch: Architecture = LLAMA_8B) -> Replica:
    plain, gpu = check(arch, Quantization()), find_gpu("H100")
    runtime = engine.runtime if engine.runtime == "tensorrt" else "pytorch"
    memory = fit(engine, plain, arch, gpu, runtime=runtime)
    return make_replica(arch, plain, gpu, engine, memory, TENSORRT_LLM)


@pytest.mark.parametrize(("speculation", "depth", "proposed"), TREES)
def test_a_tree_is_as_deep_as_its_branches(
    speculation: dict[str, Any], depth: int, proposed: int
) -> None:
    engine = engine_of(speculation)
    assert (drafted(engine), checked(engine)) == (depth, proposed)


def test_all_of_a_tree_is_checked_and_its_depth_accepted() -> None:
    tree, chain = Traffic(1000, 250, 0, 0.8, 4, 63), Traffic(1000, 250, 0, 0.8, 4)
    assert tree.tokens_per_step == chain.tokens_per_step == pytest.approx(3.3616)
    assert (tree.queries, chain.queries, Traffic(1000, 250, checked=63).queries) == (64, 5, 1)
    replica = replica_of(engine_of(None))
    of_tree, of_chain = (decode_balance(replica, each, 1) for each in (tree, chain))
    assert of_tree.operations == pytest.approx(of_chain.operations * 64 / 5)
    full = replace(replica, kv_tokens=12500, max_batch=0)
    assert (full.slots(tree), full.slots(chain)) == (12500 / 1313, 12500 / 1254)


def test_a_tree_costs_its_depth_in_steps_of_the_head() -> None:
    """Its levels are drafted one after the other, not its 63 tokens."""
    replica = replica_of(engine_of({"method": "eagle", "source": "./e"}, runtime="tensorrt"))
    assert 1 < speculation_gain(replica, Traffic(1000, 250, 0, 0.8, 4, 63), 1) < 3.3616


def test_an_eagle_head_of_a_mixture_is_a_dense_layer() -> None:
    """It has an MLP and no router: a batch reads no more of it than one request does."""
    arch = with_experts(architecture_of(MIXTRAL, {}), MIXTRAL)
    more: dict[str, Any] = {"runtime": "pytorch", "parallelism": {"tensor": 4}}
    draft = replica_of(engine_of({"method": "eagle3", "source": "./e"}, **more), arch).draft
    assert draft is not None
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    assert draft.token_ops == pytest.approx(2 * layer / 4)
    assert draft.read_bytes(64) == draft.read_bytes(1)
    assert draft.read_bytes(1) == pytest.approx(2 * (layer + 32000 * 4096) / 4, rel=0.001)


def test_routers_are_those_of_a_pipeline_stage() -> None:
    mixture = mixture_of(with_experts(architecture_of(MIXTRAL, {}), MIXTRAL))
    assert mixture is not None
    plain = check(mixture.dense, Quantization())
    whole, half = (
        mixture_bytes(mixture, plain, Parallelism(pipeline=n), element=2, shared_tables=True)[0]
        for n in (1, 2)
    )
    assert half.layers == whole.layers / 2


@pytest.mark.parametrize("proposed", [4, 63])
def test_acceptance_follows_from_the_share_of_all_that_was_proposed(proposed: int) -> None:
    tree = Traffic(500, 100, 0, 0.8, 4, proposed)
    load = ClosedLoop(concurrency=8)
    made = with_running(replica_of(engine_of(None)), tree, 8)
    share = (tree.tokens_per_step - 1) / proposed
    report = report_of([(load, made)], draft_acceptance=share)
    seen = observations(report, drafts=4, checked=proposed)[0].traffic
    assert seen.acceptance == pytest.approx(0.8, abs=1e-6)
    assert seen.queries == proposed + 1
