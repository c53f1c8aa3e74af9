"""The ladder: what each rung has, what is left out, and that full is the file itself."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.errors import SpecError, UnsupportedError
from toolkit.pipeline.ablation.describing import all_facts, differences
from toolkit.pipeline.ablation.features import FEATURES, derived
from toolkit.pipeline.ablation.ladder import ladder
from toolkit.pipeline.ablation.measured import as_measured
from toolkit.spec.models import Deployment

NGRAM = {"method": "ngram", "max_draft_len": 3}


def deployment(**changes: Any) -> Deployment:
    engine = {
        "runtime": "openvino",
        "limits": {
            "max_batch_size": 8,
            "max_input_len": 512,
            "max_seq_len": 600,
            "max_num_tokens": 128,
        },
        "speculation": NGRAM,
        **changes.pop("engine", {}),
    }
    settings: dict[str, Any] = {
        "name": "m",
        "model": {"source": "sample:smollm2-135m"},
        "quantization": {"weights": "fp8"},
        **changes,
    }
    return Deployment.model_validate({**settings, "engine": engine})


def test_the_whole_ladder() -> None:
    made = ladder(deployment())
    assert [rung.key for rung in made.steps] == [
        "naive",
        "static",
        "in-flight",
        "chunked-prefill",
        "kv-reuse",
        "quantization",
        "speculation",
        "scheduling",
    ]
    assert made.full.deployment == deployment()
    assert made.left_out == ()
    assert [rung.by_gateway for rung in made.steps] == [False] * 7 + [True]


def seen(made: Deployment) -> tuple[Any, ...]:
    """One value for each feature."""
    engine = made.engine
    return (
        engine.limits.max_batch_size,
        engine.batching.policy,
        engine.batching.chunked_prefill,
        engine.kv_cache.reuse,
        made.quantization.weights,
        engine.speculation is not None,
        made.gateway.enabled,
    )


def test_each_step_changes_one_thing() -> None:
    plain = "guaranteed_no_evict"
    assert [seen(rung.deployment) for rung in ladder(deployment()).steps] == [
        (1, plain, False, False, "none", False, False),
        (8, "static_batch", False, False, "none", False, False),
        (8, plain, False, False, "none", False, False),
        (8, plain, True, False, "none", False, False),
        (8, plain, True, True, "none", False, False),
        (8, plain, True, True, "fp8", False, False),
        (8, plain, True, True, "fp8", True, False),
        (8, plain, True, True, "fp8", True, True),
    ]


def test_unsplit_prompts_get_a_step_that_holds_them() -> None:
    steps = {rung.key: rung.deployment.engine.limits for rung in ladder(deployment()).steps}
    assert steps["in-flight"].max_num_tokens == 512
    assert steps["chunked-prefill"].max_num_tokens == 128


def test_full_without_each_has_everything_else() -> None:
    made = ladder(deployment())
    rungs = {rung.key: rung for rung in made.rungs}
    full = seen(made.full.deployment)
    changed = {
        feature: [
            (at, now)
            for at, (now, then) in enumerate(zip(seen(rungs[key].deployment), full, strict=True))
            if now != then
        ]
        for feature, key in made.removed
    }
    assert changed == {
        "in-flight": [(1, "static_batch")],
        "chunked-prefill": [(2, False)],
        "kv-reuse": [(3, False)],
        "quantization": [(4, "none")],
        "speculation": [(5, False)],
        "scheduling": [(6, False)],
    }


def test_what_is_on_the_ladder_already_is_not_measured_twice() -> None:
    made = ladder(deployment())
    assert dict(made.removed)["scheduling"] == "speculation"
    assert "without-scheduling" not in {rung.key for rung in made.rungs}
    assert len({rung.key for rung in made.rungs}) == len(made.rungs)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"engine": {"speculation": None}}, "speculation", "engine.speculation is not set"),
        ({"quantization": {}}, "quantization", "quantization.weights is none"),
        ({"gateway": {"enabled": False}}, "scheduling", "gateway.enabled is off"),
        ({"engine": {"kv_cache": {"reuse": False}}}, "kv-reuse", "kv_cache.reuse is off"),
        (
            {"engine": {"batching": {"policy": "static_batch"}}},
            "in-flight",
            "policy is static_batch",
        ),
        (
            {"engine": {"limits": {"max_batch_size": 1, "max_input_len": 512, "max_seq_len": 600}}},
            "static",
            "max_batch_size is 1",
        ),
    ],
)
def test_what_the_file_does_not_have_is_left_out_by_name(
    changes: dict[str, Any], key: str, words: str
) -> None:
    made = ladder(deployment(**changes))
    assert key not in {rung.key for rung in made.rungs}
    assert key not in dict(made.removed)
    (said,) = [one for one in made.left_out if one.key == key]
    assert words in said.reason
    assert made.full.deployment == deployment(**changes)


def test_what_the_runtime_refuses_is_left_out_with_its_words() -> None:
    def check(candidate: Deployment) -> str | None:
        refused = candidate.engine.batching.policy == "static_batch"
        return "there is no such policy" if refused else None

    made = ladder(deployment(), check)
    assert [rung.key for rung in made.steps[:2]] == ["naive", "in-flight"]
    assert [(one.key, one.reason) for one in made.left_out] == [
        ("static", "there is no such policy")
    ]
    without = {rung.key: rung for rung in made.rungs}[dict(made.removed)["in-flight"]]
    assert without.deployment.engine.limits.max_batch_size == 1


def test_a_step_that_works_only_with_the_next_is_taken_with_it() -> None:
    def check(candidate: Deployment) -> str | None:
        lone = candidate.engine.kv_cache.reuse and candidate.quantization.weights == "none"
        return "reuse wants fp8" if lone else None

    made = ladder(deployment(), check)
    joint = next(rung for rung in made.steps if rung.key == "quantization")
    assert joint.adds == ("kv-reuse", "quantization")
    assert joint.title == "+ KV reuse and quantization"
    assert ("kv-reuse", "reuse wants fp8") in [(one.key, one.reason) for one in made.left_out]
    assert made.full.deployment == deployment()


def test_what_nothing_works_without_is_on_from_the_start() -> None:
    def check(candidate: Deployment) -> str | None:
        return "does not fit" if candidate.quantization.weights == "none" else None

    made = ladder(deployment(), check)
    assert {rung.deployment.quantization.weights for rung in made.rungs} == {"fp8"}
    assert "quantization" not in dict(made.removed)
    (said,) = made.left_out
    assert (said.key, said.reason) == (
        "quantization",
        "on from the start, because without it: does not fit",
    )


def test_no_rung_is_measured_twice_where_only_in_flight_batching_works() -> None:
    def check(candidate: Deployment) -> str | None:
        engine = candidate.engine
        alone = engine.limits.max_batch_size == 1 or engine.batching.policy == "static_batch"
        return "too slow" if alone else None

    made = ladder(deployment(), check)
    assert [rung.key for rung in made.steps][:2] == ["naive", "chunked-prefill"]
    assert {one.key for one in made.left_out} == {"static", "in-flight"}


def test_a_deployment_that_is_refused_itself_has_no_ladder() -> None:
    with pytest.raises(UnsupportedError, match="never"):
        ladder(deployment(), lambda _: "never")


def test_every_set_of_features_is_a_deployment() -> None:
    asked = deployment()
    keys = [feature.key for feature in FEATURES]
    for bits in range(2 ** len(keys)):
        on = frozenset(key for at, key in enumerate(keys) if bits >> at & 1)
        made = derived(asked, on)
        assert Deployment.model_validate(made.model_dump()) == made
        assert (made == asked) == (on >= frozenset(keys) - {"static"})


def test_what_belongs_to_a_feature_goes_with_it() -> None:
    asked = deployment(
        quantization={"weights": "fp8", "kv_cache": "fp8"},
        engine={
            "runtime": "tensorrt",
            "kv_cache": {"host_offload": 1024},
            "tensorrt": {"gemm_plugin": "fp8", "low_latency_gemm": True},
        },
        serving={"gpu": "H100"},
    )
    made = derived(asked, frozenset({"in-flight", "chunked-prefill"}))
    assert made.engine.kv_cache.host_offload == 0
    assert made.engine.tensorrt.gemm_plugin is None
    assert not made.engine.tensorrt.low_latency_gemm
    assert made.quantization.kv_cache == "none"


@pytest.mark.parametrize(
    ("runtime", "weights", "lowest"),
    [("openvino", "fp8", "auto"), ("openvino", "none", "auto"), ("pytorch", "fp8", "bfloat16")],
)
def test_16_bit_arithmetic_is_a_step_down_on_cpus_only(
    runtime: str, weights: str, lowest: str
) -> None:
    asked = deployment(
        quantization={"weights": weights},
        engine={"runtime": runtime, "dtype": "bfloat16", "speculation": None},
        serving={"gpu": "H100"},
    )
    steps = {rung.key: rung.deployment.engine.dtype for rung in ladder(asked).steps}
    assert (steps["naive"], steps["quantization"]) == (lowest, "bfloat16")


def test_it_is_measured_alone_and_nobody_is_refused_for_waiting() -> None:
    asked = deployment(
        serving={"host": "0.0.0.0", "default_deadline": 5.0, "ready_timeout": 77.0},
        gateway={"host": "0.0.0.0", "keys": "keys.yaml", "replicas": ["other:8001"]},
        scheduling={
            "classes": {"fast": {"weight": 9, "ttft_ms": 50.0, "max_wait": 1.0, "max_queued": 2}}
        },
        engine={"batching": {"max_queue_size": 4}},
    )
    made = as_measured(asked, users=32)
    assert made.name == "m-ablation"
    assert (made.serving.host, made.serving.ports.http, made.serving.ports.grpc) == (
        "127.0.0.1",
        0,
        0,
    )
    assert made.serving.default_deadline is None
    assert made.serving.ready_timeout == 77.0
    assert made.engine.batching.max_queue_size == 32
    gateway = made.gateway
    assert (gateway.host, gateway.port, gateway.keys, gateway.replicas) == (
        "127.0.0.1",
        0,
        None,
        (),
    )
    one = made.scheduling.classes["fast"]
    assert (one.weight, one.ttft_ms, one.max_wait, one.max_queued) == (9, 50.0, None, 32)
    assert as_measured(asked.model_copy(update={"name": "n" * 63}), 1).name.endswith("n-ablation")


def test_rungs_are_chosen_by_name() -> None:
    made = ladder(deployment(engine={"speculation": None}))
    assert [rung.key for rung in made.chosen(["full", "naive"])] == ["naive", "scheduling"]
    assert made.chosen(["ladder"]) == made.steps
    assert made.chosen(["all"]) == made.rungs
    with pytest.raises(SpecError, match="no rung 'speculation': engine"):
        made.chosen(["speculation"])
    with pytest.raises(SpecError, match="'nave'") as caught:
        made.chosen(["nave"])
    assert str(caught.value.hint).startswith("did you mean naive? choose among all, ladder, full")
    with pytest.raises(SpecError) as caught:
        made.chosen(["zzz"])
    assert str(caught.value.hint).startswith("choose among all, ladder")


def test_a_report_says_what_each_rung_changes_and_adds() -> None:
    made = ladder(deployment())
    facts = all_facts(made, {"naive": "a", "kv-reuse": "b", "scheduling": "c"})
    assert [one.key for one in facts] == ["naive", "kv-reuse", "scheduling"]
    assert facts[1].adds == ("in-flight", "chunked-prefill", "kv-reuse")
    assert facts[2].adds == ("quantization", "speculation", "scheduling")
    assert facts[2].changes == ()
    assert facts[2].is_full
    assert "engine.limits.max_batch_size = 1" in facts[0].changes
    assert "engine.speculation = none" in facts[0].changes
    assert list(differences(made.full.deployment, made.full.deployment)) == []
