"""Write the repository of an NVIDIA runtime."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from toolkit.checkpoint.architecture import Architecture, read_architecture
from toolkit.engine import pytorch as pytorch_engine
from toolkit.engine import tensorrt as tensorrt_engine
from toolkit.engine.nvidia.target import Target, target_of
from toolkit.errors import SpecError
from toolkit.quantize.check import ResolvedQuantization
from toolkit.repository.layout import (
    ALIAS,
    ALIAS_TEMPLATE,
    SHARED,
    SUFFIX,
    VERSION,
    template_root,
)
from toolkit.repository.nvidia import pytorch, tensorrt
from toolkit.repository.nvidia.kv_share import built_draft_share, draft_share
from toolkit.repository.nvidia.parameters import EnginePaths, KvDivision
from toolkit.repository.nvidia.tokenizer_info import FILE as TOKENIZER_INFO
from toolkit.repository.nvidia.tokenizer_info import tokenizer_info
from toolkit.spec.models import Deployment, DraftModel

SERVING = "llm_serving"
_MODE = 0o644
_SERVICE = "service"
_SHARED_MODEL = "tensorrt_llm"
_OVERLAYS = {"pytorch": _SHARED_MODEL, "tensorrt": _SERVICE}
"""Folder of a runtime whose files belong to the deployment's model."""

Link = Callable[[Path, Path], None]
Copy = Callable[[Path, Path], None]


@dataclass(frozen=True)
class _Job:
    deployment: Deployment
    target: Target
    arch: Architecture
    resolved: ResolvedQuantization
    served_at: PurePath
    division: KvDivision


@dataclass(frozen=True)
class _Contents:
    """What the templates of a runtime print, and what its models are called."""

    runtime: str
    values: Mapping[str, Any]
    names: Mapping[str, str]


@dataclass(frozen=True)
class _Places:
    engine: Path
    checkpoint: Path
    out: Path
    link: Link
    copy_tokenizer: Copy


def render_nvidia(
    deployment: Deployment,
    engine: Path,
    checkpoint: Path,
    out: Path,
    served_at: PurePath,
    *,
    link: Link,
    copy_tokenizer: Copy,
    kv_tokens: int | None = None,
) -> tuple[str, str]:
    """Render into the empty directory ``out``; the names of the deployment's model and its alias.

    Args:
        deployment: What is served.
        engine: The pytorch runtime reads ``draft/`` and ``adapters/NAME/`` here, the tensorrt
            runtime ``target/``, ``draft/`` and ``adapters/NUMBER/`` too; what is not there is left
            out, as in a dry run.
        checkpoint: Configuration and tokenizer; for the pytorch runtime the weights as well.
        out: Where to write.
        served_at: Where the repository will lie when it is served: the C++ backend takes
            absolute paths only.
        link: Puts one directory's files into another without copying them.
        copy_tokenizer: Copies a checkpoint's tokenizer files into a directory.
        kv_tokens: Tokens that target and draft model both hold, where the GPU is known.

    Raises:
        SpecError, UnsupportedError: the runtime, the release or the GPU cannot do what is asked.
    """
    # The checkpoint may be quantized already: the formats are the deployment's.
    arch = replace(read_architecture(checkpoint), quantization=None)
    share = built_draft_share(engine, arch, deployment.quantization.kv_cache)
    job = _job(deployment, arch, served_at, KvDivision(share, kv_tokens))
    places = _Places(engine, checkpoint, out, link, copy_tokenizer)
    _write(job, _contents(job), out)
    if job.target.runtime == "tensorrt":
        _put_engines(job, places)
        return deployment.name, tensorrt.BLS
    _put_model(job, places)
    return deployment.name, ALIAS


def preview_nvidia(
    deployment: Deployment,
    arch: Architecture,
    served_at: PurePath,
    *,
    draft: Architecture | None = None,
    kv_tokens: int | None = None,
) -> dict[str, str]:
    """Every text that :func:`render_nvidia` would render, by its place; nothing is written.

    Args:
        deployment: What would be served.
        arch: The target model, as its config.json has it.
        served_at: Where the repository would lie.
        draft: The draft model of draft-model speculation, where it is known.
        kv_tokens: Tokens that target and draft model both hold, where the GPU is known.

    Raises:
        SpecError, UnsupportedError: the runtime, the release or the GPU cannot do what is asked.
    """
    cache = deployment.quantization.kv_cache
    share = None if draft is None else draft_share(draft, arch, cache)
    job = _job(deployment, arch, served_at, KvDivision(share, kv_tokens))
    contents = _contents(job)
    return {str(place): text for place, _, text in _files(job, contents) if text is not None}


def _job(
    deployment: Deployment, arch: Architecture, served_at: PurePath, division: KvDivision
) -> _Job:
    target = target_of(deployment)
    check = tensorrt_engine.check if target.runtime == "tensorrt" else pytorch_engine.check
    resolved = check(deployment.engine, deployment.quantization, arch, target.release, target.gpu)
    return _Job(deployment, target, arch, resolved, served_at, division)


def _contents(job: _Job) -> _Contents:
    return _tensorrt_contents(job) if job.target.runtime == "tensorrt" else _pytorch_contents(job)


def _pytorch_contents(job: _Job) -> _Contents:
    deployment, release = job.deployment, job.target.release
    models = pytorch.pytorch_models(deployment, release)
    values = {
        "models": models.by_template(),
        "llm_arguments": pytorch.model_arguments(deployment, job.arch, release, job.resolved),
        "settings": _settings(deployment, pytorch.service_settings(deployment, release)),
    }
    return _Contents("pytorch", values, {_SERVICE: deployment.name, ALIAS_TEMPLATE: ALIAS})


def _tensorrt_contents(job: _Job) -> _Contents:
    deployment, release = job.deployment, job.target.release
    if deployment.name == tensorrt.ENSEMBLE:
        raise SpecError(
            f"{deployment.name!r} is NVIDIA's own ensemble in this runtime's repository",
            where="name",
            hint="choose another name; clients may call either",
        )
    paths = {name: _paths(job, name) for name in (tensorrt.TARGET, tensorrt.DRAFT)}
    models = tensorrt.tensorrt_models(
        deployment, job.arch, release, job.resolved, paths, division=job.division
    )
    settings = _settings(deployment, tensorrt.service_settings(deployment, release))
    # NVIDIA's backend exports the engine's metrics; twice would count twice.
    settings["housekeeping"]["engine_families"] = False
    values = {"models": models.by_template(), "settings": settings}
    return _Contents("tensorrt", values, {_SERVICE: deployment.name})


def _put_model(job: _Job, places: _Places) -> None:
    version = places.out / job.deployment.name / VERSION
    places.link(places.checkpoint, version / "model")
    places.copy_tokenizer(places.checkpoint, version / "tokenizer")
    for name in ("draft", "adapters"):
        if (places.engine / name).is_dir():
            places.link(places.engine / name, version / name)


def _put_engines(job: _Job, places: _Places) -> None:
    out, checkpoint = places.out, places.checkpoint
    for model in (tensorrt.PREPROCESSING, tensorrt.POSTPROCESSING):
        _copy_serving(out / model / VERSION)
        places.copy_tokenizer(checkpoint, out / model / VERSION / "tokenizer")
    places.copy_tokenizer(checkpoint, out / job.deployment.name / VERSION / "tokenizer")
    version = out / tensorrt.TARGET / VERSION
    built = {"target": version / "engine", "adapters": version / "adapters"}
    if isinstance(job.deployment.engine.speculation, DraftModel):
        built["draft"] = out / tensorrt.DRAFT / VERSION / "engine"
    for name, place in built.items():
        if (places.engine / name).is_dir():
            places.link(places.engine / name, place)
    if job.deployment.engine.guided_decoding is not None:
        content = tokenizer_info(checkpoint / "tokenizer.json", job.arch)
        (version / TOKENIZER_INFO).write_text(json.dumps(content), encoding="utf-8")


def _paths(job: _Job, model: str) -> EnginePaths:
    version = job.served_at / model / VERSION
    return EnginePaths(version / "engine", version / "adapters", version / TOKENIZER_INFO)


def _settings(deployment: Deployment, engine: Mapping[str, Any]) -> dict[str, Any]:
    limits, serving = deployment.engine.limits, deployment.serving
    return {
        "model_name": deployment.name,
        "limits": {"max_input_len": limits.max_input_len, "max_seq_len": limits.max_seq_len},
        "requests": {"default_deadline_s": serving.default_deadline},
        "streaming": {"responses_per_core": deployment.engine.batching.responses_per_core},
        "housekeeping": {"drain_timeout_s": serving.drain_timeout},
        "engine": dict(engine),
    }


def _write(job: _Job, contents: _Contents, out: Path) -> None:
    for place, source, text in _files(job, contents):
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            target.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(source, target)
        target.chmod(_MODE)
    # Triton wants a version folder for every model, an ensemble's stays empty.
    for folder in out.iterdir():
        (folder / VERSION).mkdir(exist_ok=True)


def _files(job: _Job, contents: _Contents) -> Iterator[tuple[Path, Path, str | None]]:
    """Place in the repository, template, and what it renders to; None for what is copied."""
    environment = _environment()
    context = {"deployment": job.deployment, "release": job.target.release, **contents.values}
    for template, source in _templates(contents.runtime):
        folder, *rest = template.parts
        model = contents.names.get(folder, folder)
        if model == tensorrt.DRAFT and "draft" not in contents.values["models"]:
            continue
        place = Path(model, *rest[:-1], template.name.removesuffix(SUFFIX))
        text = None
        if source.name.endswith(SUFFIX):
            name = str(source.relative_to(template_root()))
            text = environment.get_template(name).render(context).lstrip("\n")
        yield place, source, text


def _templates(runtime: str) -> Iterator[tuple[Path, Path]]:
    """Place and template; files of the runtime replace shared ones of the same place."""
    root, found = template_root(), dict[Path, Path]()
    for file in _sources(root / SHARED / _SHARED_MODEL):
        found[Path(_SERVICE, file.relative_to(root / SHARED / _SHARED_MODEL))] = file
    for file in _sources(root / runtime):
        folder, *rest = file.relative_to(root / runtime).parts
        found[Path(_SERVICE if folder == _OVERLAYS[runtime] else folder, *rest)] = file
    yield from sorted(found.items())


def _sources(folder: Path) -> Iterator[Path]:
    """Files of ``folder`` without the caches that tools leave beside sources."""
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if file.is_file() and not any(part.startswith((".", "__py")) for part in parts):
            yield file


def _copy_serving(version: Path) -> None:
    source = template_root() / SHARED / _SHARED_MODEL / VERSION / SERVING
    for file in _sources(source):
        target = version / SERVING / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(_MODE)


def _environment() -> Any:
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(os.fspath(template_root())),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quoted"] = json.dumps
    environment.filters["yaml"] = lambda value: yaml.safe_dump(value, sort_keys=False).rstrip("\n")
    return environment
