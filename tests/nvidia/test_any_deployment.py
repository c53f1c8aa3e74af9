"""Random deployments, every release: what is rendered passes every proof."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import golden
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from nvidia_deployments import FORMATS, PYTORCH, TENSORRT
from pydantic import ValidationError

from toolkit.errors import SpecError, UnsupportedError
from toolkit.releases import known_releases
from toolkit.repository.check import check_static
from toolkit.repository.configs import read_configs
from toolkit.spec.models import Deployment

CONFIG = golden.MODELS / "llama-3.1-8b-instruct.json"
QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
CLASSES = st.dictionaries(
    st.sampled_from(["interactive", "batch", "urgent"]),
    st.fixed_dictionaries({"weight": st.integers(1, 9)}),
    min_size=1,
)
SERVING = st.fixed_dictionaries(
    {"gpu": st.sampled_from(["A100-80", "H100", "L4", "B200"]), "replicas": st.integers(1, 3)}
)


def releases_of(runtime: str) -> st.SearchStrategy[str]:
    return st.sampled_from([each.version for each in known_releases() if runtime in each.runtimes])


def made_of(
    runtime: str, release: str, engine: dict[str, Any], formats: tuple[str, str],
    serving: dict[str, Any], classes: dict[str, Any],
) -> Deployment:  # fmt: skip
    ways = engine.get("parallelism", {})
    gpus = ways.get("tensor", 1) * ways.get("pipeline", 1) * serving["replicas"]
    content = {
        "name": "some-model",
        "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "quantization": dict(zip(("weights", "kv_cache"), formats, strict=True)),
        "engine": {**engine, "runtime": runtime, "release": release},
        "serving": {**serving, "gpus": tuple(range(gpus))},
        "scheduling": {"classes": classes},
    }
    try:
        return Deployment.model_validate(content)
    except ValidationError:
        assume(False)
        raise


def prove(made: Deployment) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        try:
            repository = golden.render_deployment(made, CONFIG, folder)
        except (SpecError, UnsupportedError) as refused:
            event(f"refused: {refused.where}")
            assume(False)
        event("proved")
        assert check_static(repository) == []
        configs, findings = read_configs(repository)
        assert not findings
        assert made.name in configs
        for file in repository.rglob("*"):
            if file.name in golden.RENDERED:
                assert not re.search(r"\$\{|\{\{|\{%|@@|None\b", file.read_text()), file
        settings_file = repository / made.name / "1/settings.json"
        assert json.loads(settings_file.read_text())["engine"]["release"] == made.engine.release
    finally:
        shutil.rmtree(folder)


@QUIET
@given(PYTORCH, FORMATS, SERVING, CLASSES, releases_of("pytorch"))
def test_every_llm_api_repository_is_proved(
    engine: dict[str, Any], formats: tuple[str, str], serving: dict[str, Any],
    classes: dict[str, Any], release: str,
) -> None:  # fmt: skip
    prove(made_of("pytorch", release, engine, formats, serving, classes))


@QUIET
@given(TENSORRT, FORMATS, SERVING, CLASSES, releases_of("tensorrt"))
def test_every_engine_repository_is_proved(
    engine: dict[str, Any], formats: tuple[str, str], serving: dict[str, Any],
    classes: dict[str, Any], release: str,
) -> None:  # fmt: skip
    prove(made_of("tensorrt", release, engine, formats, serving, classes))
