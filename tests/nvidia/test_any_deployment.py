"""Random deployments, every release: what is rendered passes every proof."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import golden
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from nvidia_deployments import FORMATS, PYTORCH, TENSORRT

from toolkit.errors import ToolkitError
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
RELEASES = known_releases()


def made_of(
    runtime: str, release: str, engine: dict[str, Any], formats: tuple[str, str],
    serving: dict[str, Any], classes: dict[str, Any],
) -> Deployment:  # fmt: skip
    ways = engine.get("parallelism", {})
    gpus = ways.get("tensor", 1) * ways.get("pipeline", 1) * serving["replicas"]
    return Deployment.model_validate(
        {
            "name": "some-model",
            "model": {"source": "hf://meta-llama/Llama-3.1-8B-Instruct"},
            "quantization": dict(zip(("weights", "kv_cache"), formats, strict=True)),
            "engine": {**engine, "runtime": runtime, "release": release},
            "serving": {**serving, "gpus": tuple(range(gpus))},
            "scheduling": {"classes": classes},
        }
    )


def prove(made: Deployment) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        repository = golden.render_deployment(made, CONFIG, folder)
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
@given(PYTORCH, FORMATS, SERVING, CLASSES, st.sampled_from(RELEASES))
def test_every_llm_api_repository_is_proved(
    engine: dict[str, Any], formats: tuple[str, str], serving: dict[str, Any],
    classes: dict[str, Any], release: Any,
) -> None:  # fmt: skip
    try:
        made = made_of("pytorch", _version(release), engine, formats, serving, classes)
        prove(made)
    except (ToolkitError, ValueError):
        assume(False)


@QUIET
@given(TENSORRT, FORMATS, SERVING, CLASSES, st.sampled_from(RELEASES))
def test_every_engine_repository_is_proved(
    engine: dict[str, Any], formats: tuple[str, str], serving: dict[str, Any],
    classes: dict[str, Any], release: Any,
) -> None:  # fmt: skip
    try:
        made = made_of("tensorrt", _version(release), engine, formats, serving, classes)
        prove(made)
    except (ToolkitError, ValueError):
        assume(False)


def _version(release: Any) -> str:
    return release if isinstance(release, str) else str(release.version)
