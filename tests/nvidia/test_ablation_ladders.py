"""Every rung of every golden deployment's ablation can be built and served."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import golden
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from nvidia_deployments import FORMATS, PYTORCH, TENSORRT
from test_any_deployment import CLASSES, SERVING, made_of, releases_of

from toolkit.checkpoint.architecture import Architecture, architecture_of, read_json
from toolkit.errors import ToolkitError
from toolkit.pipeline.ablation.ladder import Ladder, ladder
from toolkit.pipeline.ablation.measured import as_measured
from toolkit.pipeline.planning import make_plan, settle
from toolkit.repository.check import check_static
from toolkit.spec.models import Deployment


def _architecture(config: Path) -> Architecture:
    return architecture_of(read_json(config), {}, where=str(config))


def ladder_of(name: str) -> Ladder:
    made = golden.deployment(name)
    arch = _architecture(golden.model_of(made))
    small = golden.draft_of(made)
    draft = _architecture(small) if small else None

    def check(candidate: Deployment) -> str | None:
        try:
            make_plan(candidate, arch, draft=draft if candidate.engine.speculation else None)
        except ToolkitError as error:
            return str(error)
        return None

    return ladder(as_measured(made, users=32), check)


@pytest.mark.parametrize(("number", "name"), enumerate(golden.names()))
def test_rungs_render_and_pass_the_static_check(number: int, name: str, tmp_path: Path) -> None:
    """The lowest, and of the others one by turns: rendering all takes minutes."""
    made = ladder_of(name)
    config = golden.model_of(golden.deployment(name))
    others = [rung for rung in made.rungs if rung not in (made.steps[0], made.full)]
    for rung in (made.steps[0], others[number % len(others)]):
        folder = tmp_path / rung.key
        repository = golden.render_deployment(rung.deployment, config, folder)
        assert check_static(repository) == [], rung.key


@pytest.mark.parametrize("name", golden.names())
def test_the_steps_go_from_nothing_to_the_deployment_itself(name: str) -> None:
    made = ladder_of(name)
    asked = golden.deployment(name)
    lowest, full = made.steps[0].deployment, made.full.deployment
    assert lowest.engine.limits.max_batch_size == 1
    assert not lowest.engine.kv_cache.reuse
    assert not lowest.engine.batching.chunked_prefill
    assert lowest.quantization.weights == "none"
    assert lowest.engine.speculation is None
    assert not lowest.gateway.enabled
    assert full.engine.model_copy(update={"batching": asked.engine.batching}) == asked.engine
    assert full.quantization == asked.quantization


@pytest.mark.parametrize("name", golden.names())
def test_engines_have_no_static_batching_and_say_so(name: str) -> None:
    made = ladder_of(name)
    missing = {one.key: one.reason for one in made.left_out}
    if golden.deployment(name).engine.runtime == "tensorrt":
        assert "not a policy of in-flight batching" in missing["static"]
        assert dict(made.removed)["in-flight"] == "without-in-flight"
    else:
        assert [rung.key for rung in made.steps[:3]] == ["naive", "static", "in-flight"]
        assert "static" not in missing


def test_a_model_that_fits_only_in_four_bits_is_quantized_from_the_start() -> None:
    made = golden.deployment("llama-70b-nvfp4-b200")
    small = made.model_copy(update={"serving": made.serving.model_copy(update={"gpu": "H100"})})
    four_bits = small.quantization.model_copy(update={"weights": "int4_awq", "kv_cache": "none"})
    small = small.model_copy(update={"quantization": four_bits})
    arch = _architecture(golden.model_of(made))

    def check(candidate: Deployment) -> str | None:
        try:
            make_plan(candidate, arch)
        except ToolkitError as error:
            return str(error)
        return None

    found = ladder(as_measured(small, users=32), check)
    assert all(rung.deployment.quantization == four_bits for rung in found.rungs)
    (said,) = [one for one in found.left_out if one.key == "quantization"]
    assert said.reason.startswith("on from the start")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.sampled_from(["pytorch", "tensorrt"]).flatmap(
        lambda runtime: st.tuples(
            st.just(runtime),
            PYTORCH if runtime == "pytorch" else TENSORRT,
            FORMATS,
            SERVING,
            CLASSES,
            releases_of(runtime),
        )
    )
)
def test_any_deployment_that_works_has_a_ladder_of_deployments_that_work(
    drawn: tuple[str, dict[str, Any], tuple[str, str], dict[str, Any], dict[str, Any], str],
) -> None:
    runtime, engine, formats, serving, classes, release = drawn
    made = as_measured(made_of(runtime, release, engine, formats, serving, classes), users=32)
    arch = _architecture(golden.MODELS / "llama-3.1-8b-instruct.json")

    def check(candidate: Deployment) -> str | None:
        try:
            settle(candidate, arch)
        except ToolkitError as error:
            return str(error)
        return None

    assume(check(made) is None)
    found = ladder(made, check)
    event(f"{runtime}: {len(found.rungs)} rungs")
    assert found.full.deployment == made
    for rung in found.rungs:
        assert check(rung.deployment) is None
        assert Deployment.model_validate(rung.deployment.model_dump()) == rung.deployment
    for before, after in itertools.pairwise(found.steps):
        assert before.on - {"static"} < after.on
        assert before.deployment != after.deployment
