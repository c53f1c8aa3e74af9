"""A rendered repository of the LLM API runtime with the stand-in in TensorRT-LLM's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from topology import HERE, LIMITS, TEMPLATES, engine_settings

REQUEST_ERROR_SEED = 4242
FATAL_SEED = 6666


def render_llm_api(
    folder: Path, compiled: Path, checkpoint: Path, *, replicas: int = 1, **told: Any
) -> Path:
    """The repository ``chat``; ``told`` goes to the stand-in."""
    from toolkit.repository.render import render
    from toolkit.spec.models import Deployment

    deployment = Deployment.model_validate(
        {
            "name": "chat",
            "model": {"source": "sample:smollm2-135m"},
            "engine": {
                "runtime": "pytorch",
                "release": "1.2.1",
                "limits": LIMITS,
                "batching": {"max_queue_size": 24},
                "guided_decoding": "xgrammar",
                "lora": {"adapters": {"sql": "./sql", "poems": "./poems"}},
            },
            "serving": {"gpu": "H100", "gpus": list(range(replicas)), "replicas": replicas},
        }
    )
    engine = folder / "engine"
    for name in ("sql", "poems"):
        (engine / "adapters" / name).mkdir(parents=True)
        (engine / "adapters" / name / "adapter_config.json").write_text("{}")
    (engine / "engine.json").write_text(json.dumps({"runtime": "pytorch"}))
    repository = folder / "repository"
    render(deployment, engine, checkpoint, repository)
    version = repository / "chat/1"
    skip = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(HERE / "stand_in/tensorrt_llm", version / "tensorrt_llm", ignore=skip)
    own = TEMPLATES / "openvino/tensorrt_llm/1/paged_engine"
    shutil.copytree(own, version / "paged_engine", ignore=skip)
    for file in compiled.glob("openvino_model.*"):
        (version / "model" / file.name).symlink_to(file.resolve())
    content = {
        "engine": engine_settings(),
        "notes": str(folder / "notes.jsonl"),
        "request_error_seed": REQUEST_ERROR_SEED,
        "fatal_seed": FATAL_SEED,
        **told,
    }
    (version / "model/stand_in.json").write_text(json.dumps(content))
    return repository


def seen(repository: Path) -> list[dict[str, Any]]:
    """What each LLM was constructed with."""
    lines = (repository / "chat/1/model/seen.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def notes(folder: Path) -> list[dict[str, Any]]:
    """What requests brought beside tokens."""
    return [json.loads(line) for line in (folder / "notes.jsonl").read_text().splitlines()]
