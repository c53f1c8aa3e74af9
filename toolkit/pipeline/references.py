"""What greedy decoding of the checkpoint gives: recorded by the build, compared when it is served.

The build decodes a few prompts by :mod:`toolkit.pipeline.reference_worker`, which shares no code
with the engines. The live validation asks the server the same: a wrong tokenizer, a lost rope
scaling or a swapped tensor shows in the first tokens, whatever the accuracy gate said of the
weights.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.checkpoint import read_architecture
from toolkit.doctor.need import resolved_runtime
from toolkit.errors import BuildError
from toolkit.pipeline.provenance import code_digest, versions
from toolkit.pipeline.stages import Job
from toolkit.serving.validate import Reference
from toolkit.serving.validate.answers import GOLDEN
from toolkit.spec.models import Deployment
from toolkit.workspace import Artifact, Json, Workspace
from toolkit.workspace.manifest import read_manifest

KIND = "references"
TOKENS = 16
FILE = "references.json"
WORKER = "toolkit.pipeline.reference_worker"
_LIBRARIES = ("torch", "transformers", "tokenizers")
_CODE = (WORKER, "toolkit.quantize.unified", "toolkit.checkpoint.architecture")
_MOST_PARAMETERS = 2_000_000_000
"""Larger models take more memory in float32, and time, than a check at the end is worth."""
_NONE = "no reference outputs for the validation: {}"
_TAIL = 20


def record(job: Job, checkpoint: Artifact) -> Artifact | None:
    """The references of ``checkpoint``; None where this machine cannot make them, which is noted.

    They are a help, not a part of what is served: a build goes on without them.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        job.progress.note(_NONE.format(f"{', '.join(missing)} not installed"))
        return None
    inputs: dict[str, Json] = {
        "checkpoint": checkpoint.key,
        "prompts": GOLDEN,
        "tokens": TOKENS,
        "code": code_digest(*_CODE),
        "versions": versions(_LIBRARIES),
    }
    if checkpoint.path.exists():
        parameters = read_architecture(checkpoint.path).parameters
        if parameters > _MOST_PARAMETERS:
            job.progress.note(_NONE.format(f"{parameters / 1e9:.0f} billion parameters"))
            return None

    def work(out: Path) -> None:
        job.progress.start("decoding a few prompts with the checkpoint, for the validation")
        found = _ask(checkpoint.path)
        (out / FILE).write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
        job.progress.finish(f"{len(found)} prompts")

    try:
        return job.workspace.produce(KIND, inputs, work, progress=job.progress)
    except BuildError as error:
        job.progress.finish("failed")
        job.progress.note(_NONE.format("; ".join([error.message, *error.details[-1:]])))
        return None


def _ask(checkpoint: Path) -> list[dict[str, Any]]:
    """Run the worker: in a process of its own, which gives torch's memory back.

    Raises:
        BuildError: it failed.
    """
    request = {"checkpoint": str(checkpoint), "prompts": GOLDEN, "tokens": TOKENS}
    done = subprocess.run(
        [sys.executable, "-m", WORKER],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    if done.returncode != 0:
        raise BuildError(
            f"its process ended with code {done.returncode}",
            where=WORKER,
            details=[line for line in done.stderr.splitlines() if line.strip()][-_TAIL:],
        )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _environment() -> dict[str, str]:
    import toolkit

    root = str(Path(toolkit.__file__).parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # Threads that wait by spinning starve each other where cores are shared with other work.
    passive = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    return {**passive, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@dataclass(frozen=True)
class Standard:
    """What the live validation holds a server against: arguments of ``validate_live``.

    Measured on SmolLM2-135M over 40 prompts of 16 tokens: 100% of the tokens agree without
    quantization, 99.8% in fp8. One early near-tie costs a quarter of four prompts, whatever is
    broken all of them: half is in between.
    """

    references: tuple[Reference, ...] = ()
    tokenize: Callable[[str], Sequence[int]] | None = None
    minimum_agreement: float = 0.5
    numeric_share: float = 0.0


def standard_of(deployment: Deployment, repository: Path | None) -> Standard:
    """What is known of ``deployment``, served from ``repository`` of a workspace (None: unknown).

    On GPUs the shape of a batch changes rounding, so any share of answers may differ in a batch
    after a common beginning; on the CPU runtime none.
    """
    share = 0.0 if resolved_runtime(deployment) == "openvino" else 1.0
    recorded = _recorded(repository) if repository else None
    tokenizer = next(repository.rglob("tokenizer.json"), None) if repository else None
    if recorded is None or tokenizer is None:
        return Standard(numeric_share=share)
    return Standard(_read(recorded), partial(_tokenize, tokenizer), numeric_share=share)


def _recorded(repository: Path) -> Path | None:
    """The newest references of the checkpoint that the repository was rendered for."""
    manifest = read_manifest(repository.parent)
    checkpoint = manifest.inputs.get("checkpoint") if manifest else None
    if checkpoint is None:
        return None
    store = Workspace(repository.absolute().parents[2])
    found = [each for each in store.list(KIND) if each.manifest.inputs["checkpoint"] == checkpoint]
    return found[-1].path / FILE if found else None


def _read(path: Path) -> tuple[Reference, ...]:
    return tuple(
        Reference(each["prompt"], tuple(each["tokens"]), each["text"])
        for each in json.loads(path.read_text(encoding="utf-8"))
    )


def _tokenize(path: Path, text: str) -> Sequence[int]:
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_file(str(path)).encode(text, add_special_tokens=False).ids
    return ids
