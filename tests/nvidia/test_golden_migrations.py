"""Engine-path deployments, migrated to every release with the LLM API, pass the same proof."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
import yaml

from toolkit.checkpoint.architecture import architecture_of, read_json
from toolkit.pipeline.migration import Migration, migrate
from toolkit.pipeline.planning import make_plan
from toolkit.repository.check import check_static
from toolkit.spec.loading import load
from toolkit.spec.models import Lookahead, NGram

ENGINES = [name for name in golden.names() if golden.deployment(name).engine.runtime == "tensorrt"]
RELEASES = ("1.2.1", "1.3.0rc27", "1.4.0rc1")


def migrated(name: str, to: str) -> Migration:
    file = golden.GOLDEN / name / "deployment.yaml"
    return migrate(load(file, environ={}), file.read_text(), to, environ={})


def test_there_is_something_to_migrate() -> None:
    methods = {
        getattr(golden.deployment(name).engine.speculation, "method", None) for name in ENGINES
    }
    assert {None, "draft_model", "lookahead"} <= methods
    assert len(ENGINES) >= 7


@pytest.mark.parametrize("to", RELEASES)
@pytest.mark.parametrize("name", ENGINES)
def test_a_migrated_golden_passes_the_same_proof(name: str, to: str, tmp_path: Path) -> None:
    made = migrated(name, to)
    assert (made.deployment.engine.runtime, made.deployment.engine.release) == ("pytorch", to)
    new = tmp_path / "new.yaml"
    new.write_text(made.text)
    again = load(new, environ={}).deployment
    assert again == made.deployment
    config = golden.model_of(again)
    repository = golden.render_deployment(again, config, tmp_path)
    assert check_static(repository) == []
    arch = architecture_of(read_json(config), {}, where=str(config))
    assert make_plan(again, arch).memory is not None


@pytest.mark.parametrize("to", RELEASES)
@pytest.mark.parametrize("name", ENGINES)
def test_what_was_asked_for_is_still_asked_for(name: str, to: str, tmp_path: Path) -> None:
    before, after = golden.deployment(name), migrated(name, to).deployment
    assert after.engine.limits == before.engine.limits
    assert after.engine.parallelism == before.engine.parallelism
    assert after.engine.kv_cache == before.engine.kv_cache
    assert after.engine.lora == before.engine.lora
    assert after.engine.guided_decoding == before.engine.guided_decoding
    assert after.quantization == before.quantization
    assert (after.serving.gpus, after.serving.replicas) == (
        before.serving.gpus,
        before.serving.replicas,
    )
    if isinstance(before.engine.speculation, Lookahead):
        assert isinstance(after.engine.speculation, NGram)
    else:
        assert after.engine.speculation == before.engine.speculation
    repository = golden.render_deployment(after, golden.model_of(after), tmp_path)
    told = yaml.safe_load((repository / after.name / "1/model.yaml").read_text())
    for field, value in before.engine.limits:
        assert told[field] == value
    assert told["tensor_parallel_size"] == before.engine.parallelism.tensor
    assert ("speculative_config" in told) == (before.engine.speculation is not None)
