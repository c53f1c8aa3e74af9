"""The command lines that make a deployment's engines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pydantic import JsonValue

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.tensorrt.check import engine_dtype
from toolkit.engine.tensorrt.flags import draft_flags, target_flags
from toolkit.quantize.check import ResolvedQuantization, check
from toolkit.quantize.trtllm_export import check_export
from toolkit.releases import Release
from toolkit.spec.models import Deployment, DraftModel, Eagle, Medusa, Quantization

Step = Literal["adapter", "convert", "target", "draft"]

_SCRIPTS = PurePosixPath("/app/examples")
"""Where the Triton image keeps TensorRT-LLM's examples (tensorrtllm_backend, README.md)."""


@dataclass(frozen=True, slots=True)
class BuildPaths:
    """Directories as the commands see them: in the container, or relative to where they run.

    Attributes:
        model: The target's Hugging Face checkpoint; read only where heads are converted with it.
        heads: The checkpoint of Medusa or EAGLE heads.
        checkpoint: The target's TensorRT-LLM checkpoint.
        engine: Where its engine goes.
        draft_checkpoint: The draft model's TensorRT-LLM checkpoint.
        draft_engine: Where its engine goes.
        adapters: By name, an adapter as it was trained, and where it goes as the server reads it;
            every adapter of the deployment if absent.
    """

    model: str = "model"
    heads: str = "heads"
    checkpoint: str = "checkpoints/target"
    engine: str = "engines/target"
    draft_checkpoint: str = "checkpoints/draft"
    draft_engine: str = "engines/draft"
    adapters: Mapping[str, tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command, to be run without a shell.

    Attributes:
        step: What it makes.
        argv: The words of its command line.
        inputs: Directories that have to be there.
        output: Directory that it fills.
        gpus: GPUs that it uses at once.
    """

    step: Step
    argv: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    gpus: int

    def __str__(self) -> str:
        return shlex.join(self.argv)


def build_commands(
    deployment: Deployment,
    arch: Architecture,
    release: Release,
    *,
    resolved: ResolvedQuantization | None = None,
    paths: BuildPaths | None = None,
) -> list[Command]:
    """Every command that a deployment's engines take, in order.

    Args:
        deployment: A deployment that :func:`toolkit.engine.tensorrt.check` accepts.
        arch: The target model.
        release: The release whose container runs the commands.
        resolved: The target's formats, as that check returned them.
        paths: Directories.

    Raises:
        SpecError, UnsupportedError: the release has no flag for what a field asks.
    """
    engine, paths = deployment.engine, paths or BuildPaths()
    if resolved is None:
        ways = engine.parallelism
        spec = deployment.quantization
        resolved = check_export(arch, spec, tensor=ways.tensor, pipeline=ways.pipeline)
    commands = list(_adapters(deployment, arch, paths))
    if isinstance(engine.speculation, Eagle | Medusa):
        commands.append(_convert(deployment, engine.speculation, arch, release, paths))
    flags = target_flags(engine, resolved, release)
    commands.append(_build("target", flags, release, paths.checkpoint, paths.engine))
    if isinstance(engine.speculation, DraftModel):
        plain = check(arch, Quantization())
        flags = draft_flags(engine, plain, release)
        commands.append(_build("draft", flags, release, paths.draft_checkpoint, paths.draft_engine))
    return commands


def _build(
    step: Step,
    flags: dict[str, JsonValue],
    release: Release,
    checkpoint: str,
    engine: str,
) -> Command:
    whole: dict[str, JsonValue] = {"checkpoint_dir": checkpoint, "output_dir": engine, **flags}
    words = [word for name, value in whole.items()
             for word in release.build_flag(name).arguments(value)]  # fmt: skip
    workers = flags["workers"]
    assert isinstance(workers, int)
    return Command(step, ("trtllm-build", *words), (checkpoint,), engine, workers)


def _adapters(deployment: Deployment, arch: Architecture, paths: BuildPaths) -> Iterator[Command]:
    """Adapters in the server's own form, by the examples' script (tensorrtllm_backend, lora.md)."""
    lora = deployment.engine.lora
    places = paths.adapters
    if places is None:
        names = lora.adapters if lora else ()
        places = {
            name: (f"adapters/{name}", f"engines/adapters/{number}")
            for number, name in enumerate(names)
        }
    script = str(_SCRIPTS / "hf_lora_convert.py")
    for source, out in places.values():
        words = ("--in-file", source, "--out-dir", out, "--storage-type", _dtype(deployment, arch))
        yield Command("adapter", ("python3", script, *words), (source,), out, 0)


def _convert(
    deployment: Deployment,
    heads: Eagle | Medusa,
    arch: Architecture,
    release: Release,
    paths: BuildPaths,
) -> Command:
    """The target with its heads as one TensorRT-LLM checkpoint, by the examples' own script."""
    ways = deployment.engine.parallelism
    method = release.speculation(heads.method, "tensorrt")
    options: dict[str, object] = {
        "model_dir": paths.model,
        "output_dir": paths.checkpoint,
        "dtype": _dtype(deployment, arch),
        "tp_size": ways.tensor,
        "pp_size": ways.pipeline,
    }
    for field, name in method.conversion.items():
        options[name] = paths.heads if field == "source" else getattr(heads, field)
    script = str(_SCRIPTS / heads.method / "convert_checkpoint.py")
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return Command(
        "convert", ("python3", script, *words), (paths.model, paths.heads), paths.checkpoint, 1
    )


def _dtype(deployment: Deployment, arch: Architecture) -> str:
    chosen = deployment.engine.dtype
    return engine_dtype(arch) if chosen == "auto" else chosen
