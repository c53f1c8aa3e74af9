"""Write the Triton model repository of a deployment."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from toolkit.checkpoint.architecture import read_architecture
from toolkit.errors import SpecError
from toolkit.repository.contract import load_contract
from toolkit.repository.layout import (
    ALIAS,
    ENGINE_FOLDER,
    SUFFIX,
    TOKENIZER_FILES,
    TOKENIZER_FOLDER,
    rendered_place,
    template_files,
)
from toolkit.repository.settings import model_settings
from toolkit.spec.models import Deployment

_MODE = 0o644


@dataclass(frozen=True)
class RenderedRepository:
    """A repository on disk: ``model`` is what clients call, ``alias`` its LLM API names."""

    path: Path
    model: str
    alias: str


def render(
    deployment: Deployment,
    engine: Path,
    checkpoint: Path,
    out: Path,
    *,
    served_at: PurePath | None = None,
    kv_tokens: int | None = None,
) -> RenderedRepository:
    """Render the repository into ``out``, complete or not at all.

    ``engine.json`` in the compiled engine's folder says for which runtime. The same inputs give
    the same bytes. Files of ``engine`` are hard-linked where the file system allows it, copied
    where not; tokenizer files come from ``checkpoint``. What was in ``out`` before is replaced.
    ``served_at`` is where the repository will lie when it is served, if not at ``out``, and
    ``kv_tokens`` what target and draft model both hold in their caches, where that is known; only
    the tensorrt runtime writes them down.

    Raises:
        UnsupportedError: the runtime cannot honour a field of the deployment.
        SpecError: the checkpoint has no tokenizer.json, or the engine's folder no engine.json.
    """
    _require(checkpoint / "tokenizer.json", "the checkpoint")
    _require(engine / "engine.json", "the compiled engine")
    runtime = json.loads((engine / "engine.json").read_text(encoding="utf-8"))["runtime"]
    if runtime in ("tensorrt", "pytorch"):
        place = served_at or out.absolute()
        return _render_nvidia(deployment, engine, checkpoint, out, place, kv_tokens)
    settings = model_settings(deployment, runtime, read_architecture(checkpoint))
    building = out.with_name(f".{out.name}.{os.getpid()}.new")
    shutil.rmtree(building, ignore_errors=True)
    try:
        _write_templates(deployment, settings, runtime, building)
        _link_tree(engine, building / deployment.name / ENGINE_FOLDER)
        _copy_tokenizer(checkpoint, building / deployment.name / TOKENIZER_FOLDER)
        _replace(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return RenderedRepository(out, deployment.name, ALIAS)


def _render_nvidia(
    deployment: Deployment,
    engine: Path,
    checkpoint: Path,
    out: Path,
    served_at: PurePath,
    kv_tokens: int | None,
) -> RenderedRepository:
    from toolkit.repository.nvidia import render_nvidia

    building = out.with_name(f".{out.name}.{os.getpid()}.new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        names = render_nvidia(
            deployment,
            engine,
            checkpoint,
            building,
            served_at,
            link=_link_tree,
            copy_tokenizer=_copy_tokenizer,
            kv_tokens=kv_tokens,
        )
        _replace(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return RenderedRepository(out, *names)


def _require(file: Path, owner: str) -> None:
    if not file.is_file():
        raise SpecError(f"{owner} has no {file.name}", where=str(file))


def _write_templates(
    deployment: Deployment, settings: dict[str, Any], runtime: str, out: Path
) -> None:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quoted"] = json.dumps
    values = {
        "deployment": deployment,
        "settings": settings,
        "public": load_contract("public"),
        "llmapi": load_contract("llmapi"),
        "alias": ALIAS,
    }
    for place, source in template_files(runtime):
        target = out / rendered_place(place, deployment)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        if source.name.endswith(SUFFIX):
            content = environment.from_string(content.decode()).render(values).encode()
        target.write_bytes(content)
        target.chmod(_MODE)
    # Triton wants a version folder for every model, an ensemble's stays empty.
    for model in (deployment.name, ALIAS):
        (out / model / "1").mkdir(exist_ok=True)


def _link_tree(source: Path, target: Path) -> None:
    for file in sorted(source.rglob("*")):
        if file.is_file() and file.name != "manifest.json":
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, place)


def _copy_tokenizer(checkpoint: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, target / name)


def _replace(building: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(old)
    building.rename(out)
    shutil.rmtree(old, ignore_errors=True)
