"""Derive a draft model for speculative decoding from its target: fewer layers, distilled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import Architecture, read_architecture
from toolkit.checkpoint.verification import verify
from toolkit.errors import UnsupportedError
from toolkit.progress import Progress
from toolkit.quantize.child import run_job
from toolkit.quantize.draft_report import DraftReport
from toolkit.quantize.run import NOTES, require_modelopt
from toolkit.spec.models import Calibration

_WORK = ".draft"


def derive_draft(
    checkpoint: Path,
    layers: int,
    steps: int,
    calibration: Calibration,
    out: Path,
    *,
    progress: Progress,
    seed: int = 0,
) -> DraftReport:
    """Write a draft with ``layers`` of the target's layers into ``out``, distilled ``steps`` steps.

    The same inputs give the same draft on the same machine and library versions. An interrupted
    run continues from its last saved state when it is started again with the same ``out``.

    Args:
        checkpoint: The target, a plain checkpoint directory.
        layers: Layers to keep; see :func:`kept_layers`.
        steps: Optimizer steps; 0 only drops layers.
        calibration: Text that is distilled on, beside the target's own continuations of it.
        out: Directory for the checkpoint and notes.json.
        progress: Told of every stage.
        seed: Of batch order and continuations.

    Raises:
        SpecError: the target is damaged or a pickle, or the text is too short.
        UnsupportedError: more layers than the target has, or a quantized target.
        BuildError: the training failed; the end of its log is attached.
    """
    verify(checkpoint, digests=False)
    check_draft(read_architecture(checkpoint), layers)
    require_modelopt()
    work = out / _WORK
    request = {
        "checkpoint": str(checkpoint.resolve()),
        "layers": layers,
        "steps": steps,
        "calibration": calibration.model_dump(mode="json"),
        "seed": seed,
    }
    _continue_only(work, request)
    placed = {**request, "out": str(work.resolve())}
    report = DraftReport.from_json(run_job("derive_draft", placed, progress=progress))
    for file in sorted((work / "out").iterdir()):
        file.replace(out / file.name)
    shutil.rmtree(work)
    (out / NOTES).write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    return report


def _continue_only(work: Path, request: Mapping[str, Any]) -> None:
    """Keep the state in ``work`` if it is that of the same request, else start afresh."""
    asked, wanted = work / "request.json", json.dumps(request, sort_keys=True)
    if not asked.exists() or asked.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        asked.write_text(wanted, encoding="utf-8")


def check_draft(arch: Architecture, layers: int) -> None:
    """Refuse a draft that is no smaller than its target.

    Raises:
        UnsupportedError: with the largest number of layers that makes sense.
    """
    if not 1 <= layers < arch.num_layers:
        raise UnsupportedError(
            f"a draft of {layers} layers is no smaller than the target's {arch.num_layers}",
            where="engine.speculation.draft.derive_layers",
            hint=f"keep 1 to {arch.num_layers - 1} layers; a sixth of them is a good start",
        )
    if arch.quantization:
        raise UnsupportedError(
            f"a draft is derived from full-precision weights, these are {arch.quantization}",
            where="engine.speculation.draft.derive_layers",
            hint="point model.source at the original checkpoint",
        )


def kept_layers(influence: Sequence[float], layers: int) -> tuple[int, ...]:
    """Indices of the ``layers`` layers to keep: the first, the last, and the most influential.

    Args:
        influence: For each layer of the target how far it turns the hidden state, see
            :func:`toolkit.quantize.distill.layer_influence`.
        layers: How many to keep; one alone is the first.
    """
    if layers == 1:
        return (0,)
    last = len(influence) - 1
    inner = sorted(range(1, last), key=lambda index: (-influence[index], index))
    return tuple(sorted({0, last, *inner[: layers - 2]}))
