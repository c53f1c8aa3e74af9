"""The sum behind `plan`: what counts, what is refused, and what would fit instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_shapes import LLAMA_1B, LLAMA_8B, LLAMA_70B, MIXTRAL

from toolkit.capacity import MemoryPlan, fit
from toolkit.capacity.weights import weight_bytes
from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.target import NvidiaRuntime
from toolkit.errors import UnsupportedError
from toolkit.quantize.check import check
from toolkit.spec.gpus import GPUS, Gpu, find_gpu
from toolkit.spec.models import Engine, Parallelism, Quantization

GIB = 2**30
H100, A100, L4, B200 = (find_gpu(name) for name in ("H100", "A100-80", "L4", "B200"))
DRAFT = {"method": "draft_model", "draft": {"source": "./d"}}


def plan(
    engine: dict[str, Any],
    arch: Architecture = LLAMA_8B,
    weights: str = "none",
    kv_cache: str = "none",
    gpu: Gpu = H100,
    runtime: NvidiaRuntime = "pytorch",
    **more: Any,
) -> MemoryPlan:
    settled = Quantization.model_validate({"weights": weights, "kv_cache": kv_cache})
    resolved = check(arch, settled) if arch.family != "other" else check(arch, Quantization())
    return fit(Engine.model_validate(engine), resolved, arch, gpu, runtime=runtime, **more)


def refused(*args: Any, **more: Any) -> UnsupportedError:
    with pytest.raises(UnsupportedError) as caught:
        plan(*args, **more)
    return caught.value


def line(made: MemoryPlan, name: str) -> int:
    return next(one.bytes for one in made.fixed if one.name == name)


def all_weights(made: MemoryPlan) -> int:
    return line(made, "weights") + line(made, "embeddings and lm_head")


def test_plain_weights_are_the_parameters_of_the_model() -> None:
    for arch in (LLAMA_8B, LLAMA_1B):
        assert all_weights(plan({}, arch)) == 2 * arch.parameters - 2 * arch.hidden_size


def test_a_tied_head_is_held_twice_in_an_engine() -> None:
    table = LLAMA_1B.vocab_size * LLAMA_1B.hidden_size * 2
    made = plan({}, LLAMA_1B), plan({}, LLAMA_1B, runtime="tensorrt")
    assert all_weights(made[1]) - all_weights(made[0]) == table


@pytest.mark.parametrize(
    ("weights", "bits"), [("fp8", 8), ("int4_awq", 4 + 16 / 128), ("nvfp4", 4 + 8 / 16)]
)
def test_quantized_layers_take_their_format_s_bits(weights: str, bits: float) -> None:
    layers = LLAMA_8B.num_layers * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336)
    assert line(plan({}, weights=weights), "weights") == pytest.approx(layers * bits / 8, rel=0.002)


def test_excluded_layers_keep_their_size() -> None:
    some = Quantization(weights="fp8", exclude=("lm_head", "model.layers.0.*"))
    sizes = [
        weight_bytes(
            LLAMA_8B, check(LLAMA_8B, spec), Parallelism(), element=2, shared_tables=True
        ).layers
        for spec in (Quantization(weights="fp8"), some)
    ]
    layer = 4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336
    assert sizes[1] - sizes[0] == pytest.approx(layer, rel=0.001)


def test_gpus_share_the_weights_and_the_cache() -> None:
    one, four = plan({}), plan({"parallelism": {"tensor": 4}})
    assert all_weights(four) == pytest.approx(all_weights(one) / 4, rel=0.001)
    assert four.kv_bytes_per_token == one.kv_bytes_per_token / 4
    staged = plan({"parallelism": {"pipeline": 2}})
    assert staged.kv_bytes_per_token == one.kv_bytes_per_token / 2
    assert all_weights(staged) == pytest.approx(all_weights(one) / 2, rel=0.07)


def test_a_kv_head_is_never_cut() -> None:
    eight, sixteen = (plan({"parallelism": {"tensor": ways}}) for ways in (8, 16))
    assert eight.kv_bytes_per_token == sixteen.kv_bytes_per_token


def test_attention_data_parallelism_repeats_attention() -> None:
    split = plan({"parallelism": {"tensor": 4}})
    repeated = plan({"parallelism": {"tensor": 4, "attention_data_parallel": True}})
    attention = LLAMA_8B.num_layers * (4096 * 4096 * 2 + 4096 * 1024 * 2) * 2
    assert line(repeated, "weights") - line(split, "weights") == pytest.approx(
        attention * 3 / 4, rel=0.001
    )
    assert repeated.kv_bytes_per_token == 4 * split.kv_bytes_per_token


@pytest.mark.parametrize(("kv_cache", "share"), [("fp8", 1 / 2), ("nvfp4", 9 / 32)])
def test_a_smaller_cache_format_holds_more_tokens(kv_cache: str, share: float) -> None:
    small = plan({}, kv_cache=kv_cache, gpu=B200)
    assert small.kv_bytes_per_token == plan({}, gpu=B200).kv_bytes_per_token * share


def test_a_draft_model_takes_weights_and_cache() -> None:
    alone = plan({})
    both = plan({"speculation": DRAFT}, draft=LLAMA_1B)
    assert line(both, "draft weights") == pytest.approx(2 * LLAMA_1B.parameters, rel=0.001)
    own = 2 * LLAMA_1B.num_layers * LLAMA_1B.num_kv_heads * LLAMA_1B.head_dim * 2
    assert both.kv_bytes_per_token == alone.kv_bytes_per_token + own
    assert both.kv_tokens < alone.kv_tokens


def test_drafts_lengthen_the_longest_request() -> None:
    # 4096 + 5 drafts are 129 blocks of 32.
    made = plan({"speculation": {"method": "ngram", "max_draft_len": 5}})
    assert made.sequence_tokens == 129 * 32


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ({"speculation": {"method": "eagle3", "source": "./e"}}, "EAGLE head"),
        ({"speculation": {"method": "medusa", "source": "./m"}}, "Medusa heads"),
        ({"lora": {"adapters": {"sql": "./sql"}}}, "LoRA adapters"),
    ],
)
def test_extras_have_a_line_of_their_own(engine: dict[str, Any], name: str) -> None:
    assert 0.01 * GIB < line(plan(engine), name) < 5 * GIB


def test_more_adapters_than_are_held_cost_nothing() -> None:
    adapters = {f"a{index}": "./a" for index in range(8)}
    few = plan({"lora": {"adapters": adapters, "max_on_gpu": 2}})
    assert 4 * line(few, "LoRA adapters") == line(
        plan({"lora": {"adapters": adapters}}), "LoRA adapters"
    )


def test_a_fixed_pool_is_taken_as_it_is_said() -> None:
    assert plan({"kv_cache": {"size": "8GiB"}}).pool == 8 * GIB
    cut = plan({"kv_cache": {"size": "200GiB"}})
    assert cut.pool + cut.used == H100.memory
    assert any("engine.kv_cache.size" in note for note in cut.notes)


def test_a_pool_that_full_requests_fill_early_is_noted() -> None:
    made = plan({"limits": {"max_batch_size": 256, "max_num_tokens": 4096}})
    assert made.full_requests < 256
    assert str(made.full_requests) in made.notes[0]
    assert not plan({"limits": {"max_batch_size": 8}}).notes


@pytest.mark.parametrize("fraction", [0.5, 0.9, 1.0])
def test_the_terms_add_up(fraction: float) -> None:
    made = plan({"kv_cache": {"free_memory_fraction": fraction}})
    *terms, total = (float(one.rpartition(" GiB")[0].split()[-1]) for one in made.lines())
    assert sum(terms) == pytest.approx(total, abs=0.01 * len(terms))


def test_what_does_not_fit_is_refused_with_the_sum() -> None:
    error = refused({}, LLAMA_70B)
    assert error.where == "model.source"
    assert "H100" in error.message
    sum_ = "\n".join(error.details)
    for term in ("weights", "embeddings", "activations", "logits", "runtime", "H100 has"):
        assert term in sum_
    # 80 layers in 16 bit.
    assert "127.50 GiB" in sum_


def test_the_ways_out_really_fit() -> None:
    hint = refused({}, LLAMA_70B).hint or ""
    assert "quantization.weights: fp8" in hint
    assert "engine.parallelism.tensor: 2" in hint
    assert plan({}, LLAMA_70B, weights="fp8").fits
    assert plan({"parallelism": {"tensor": 2}}, LLAMA_70B).fits
    # An A100 does not compute in FP8, and one L4 holds no format of it.
    assert "int4_awq" in (refused({}, LLAMA_70B, gpu=A100).hint or "")
    assert "quantization" not in (refused({}, LLAMA_70B, gpu=L4).hint or "")


def test_a_long_context_names_the_longest_that_fits() -> None:
    limits = {"max_seq_len": 131_072, "max_input_len": 130_000}
    engine = {"limits": limits}
    error = refused(engine, gpu=L4)
    assert error.where == "engine.limits.max_seq_len"
    hint = error.hint or ""
    longest = int(hint.partition("max_seq_len up to ")[2].split(";")[0])
    limits |= {"max_seq_len": longest, "max_input_len": longest - 1}
    assert plan({"limits": limits}, gpu=L4).full_requests == 1
    limits |= {"max_seq_len": longest + 64}
    assert refused({"limits": limits}, gpu=L4)


def test_a_pool_below_one_request_is_refused_by_its_own_field() -> None:
    error = refused({"kv_cache": {"size": "256MiB"}})
    assert error.where == "engine.kv_cache"
    assert "2048 tokens" in error.message


def test_an_fp8_cache_is_offered_where_it_helps() -> None:
    limits = {"max_seq_len": 36_000, "max_input_len": 30_000}
    hint = refused({"limits": limits}, gpu=L4).hint or ""
    assert "quantization.kv_cache: fp8" in hint
    assert plan({"limits": limits}, kv_cache="fp8", gpu=L4).fits
    ampere = replace(L4, name="A10", compute_capability=(8, 6))
    assert "fp8" not in (refused({"limits": limits}, gpu=ampere).hint or "")


def test_unknown_layers_are_taken_from_the_checkpoint_s_size() -> None:
    with pytest.raises(UnsupportedError, match="mixtral"):
        plan({}, MIXTRAL)
    size = 93 * 10**9
    made = plan({"parallelism": {"tensor": 2}}, MIXTRAL, checkpoint_bytes=size)
    assert line(made, "weights") == pytest.approx(size / 2, rel=0.001)


@given(
    gpu=st.sampled_from(GPUS),
    batch=st.sampled_from([1, 16, 128]),
    length=st.sampled_from([512, 8192, 65_536]),
    weights=st.sampled_from(["none", "fp8", "int4_awq"]),
    tensor=st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=150, deadline=None)
def test_a_plan_never_uses_more_than_there_is(
    gpu: Gpu, batch: int, length: int, weights: str, tensor: int
) -> None:
    limits = {
        "max_batch_size": batch,
        "max_seq_len": length,
        "max_input_len": length // 2,
        "max_num_tokens": 2048,
    }
    engine = {"limits": limits, "parallelism": {"tensor": tensor}}
    try:
        made = plan(engine, weights=weights, gpu=gpu)
    except UnsupportedError as error:
        assert error.details  # noqa: PT017
        assert error.hint  # noqa: PT017
        return
    assert made.used + made.pool <= gpu.memory
    assert made.kv_tokens * made.kv_bytes_per_token <= made.pool
    assert made.full_requests >= 1
    assert all(one.bytes >= 0 for one in made.fixed)
