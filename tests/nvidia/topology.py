"""A rendered repository of the engine path with the token-id double in NVIDIA's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TEMPLATES = HERE.parents[1] / "model_repo_templates"

LIMITS = {"max_batch_size": 16, "max_input_len": 512, "max_seq_len": 768, "max_num_tokens": 768}
DRAFTS = 3


def deployment(name: str = "chat", **engine: Any) -> Any:
    from toolkit.spec.models import Deployment

    return Deployment.model_validate(
        {
            "name": name,
            "model": {"source": "sample:smollm2-135m"},
            "engine": {"runtime": "tensorrt", "limits": LIMITS, **engine},
            "serving": {"gpu": "H100"},
        }
    )


def render_topology(folder: Path, compiled: Path, checkpoint: Path) -> Path:
    """The repository ``chat`` with draft-model speculation; its engines are the CPU engine."""
    from toolkit.repository.render import render

    speculation = {
        "method": "draft_model",
        "draft": {"source": "sample:smollm2-135m"},
        "max_draft_len": DRAFTS,
    }
    engine = folder / "engine"
    engine.mkdir(parents=True)
    (engine / "engine.json").write_text(json.dumps({"runtime": "tensorrt"}))
    repository = folder / "repository"
    render(deployment(speculation=speculation), engine, checkpoint, repository)
    # A draft that is wrong now and then: some tokens are confirmed and some are not.
    put_double(repository / "tensorrt_llm", compiled, {})
    put_double(repository / "tensorrt_llm_draft", compiled, {"wrong_every": 4})
    return repository


def put_double(model: Path, compiled: Path, told: dict[str, Any]) -> None:
    """Replace NVIDIA's backend in the folder ``model``; its configuration stays otherwise."""
    config = model / "config.pbtxt"
    text = config.read_text()
    assert 'backend: "tensorrtllm"' in text
    config.write_text(text.replace('backend: "tensorrtllm"', 'backend: "python"'))
    version = model / "1"
    shutil.copy(HERE / "token_id_double/model.py", version)
    put_cpu_engine(version, compiled)
    engine = engine_settings()
    (version / "double.json").write_text(json.dumps({"engine": engine, **told}))


def put_cpu_engine(version: Path, compiled: Path) -> None:
    """The CPU engine's code and its compiled model."""
    skip = shutil.ignore_patterns("__pycache__", ".*")
    shared = TEMPLATES / "shared/tensorrt_llm/1/llm_serving"
    own = TEMPLATES / "openvino/tensorrt_llm/1/paged_engine"
    shutil.copytree(shared, version / "llm_serving", ignore=skip, dirs_exist_ok=True)
    shutil.copytree(own, version / "paged_engine", ignore=skip)
    (version / "engine").mkdir(exist_ok=True)
    for file in compiled.glob("openvino_model.*"):
        (version / "engine" / file.name).symlink_to(file.resolve())


def engine_settings() -> dict[str, Any]:
    """What the CPU engine behind a double is told.

    The cache keeps 32 bits: with fewer, a token that is computed with its neighbours (a draft that
    is verified, a prompt that comes again) may be rounded otherwise than one that comes alone, and
    where two tokens are nearly as likely the other one is chosen.
    """
    cache = {"kv_cache_bytes": 600 * 2**20, "kv_cache_fraction": 1.0, "kv_cache_precision": "f32"}
    return {**LIMITS, **cache, "threads": 1}
