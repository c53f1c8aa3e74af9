"""Compile: a plain or quantized checkpoint becomes OpenVINO IR, with what was done to it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.checkpoint.architecture import Architecture, read_architecture
from toolkit.engine.openvino import graph
from toolkit.engine.openvino.weights import CheckpointWeights
from toolkit.errors import UnsupportedError
from toolkit.progress import Progress
from toolkit.quantize.unified import UnifiedCheckpoint

MODEL = "openvino_model.xml"
DRAFT = "draft"
DESCRIPTION = "engine.json"
LINEARS_PER_LAYER = 7


@dataclass(frozen=True)
class CompiledModel:
    """One compiled model.

    ``carried`` counts layers by how their numbers are carried (``fp8 as float16``);
    ``kv_cache`` is the format that the checkpoint was calibrated for.
    """

    model_type: str
    vocab_size: int
    max_position: int
    carried: dict[str, int]
    kv_cache: str | None


@dataclass(frozen=True)
class CompiledEngine:
    """The contents of ``engine.json``."""

    runtime: str
    openvino: str
    target: CompiledModel
    draft: CompiledModel | None


def compile_checkpoint(
    checkpoint: Path, out: Path, *, progress: Progress, draft: Path | None = None
) -> CompiledEngine:
    """Write ``openvino_model.xml/.bin`` (and ``draft/`` likewise) and ``engine.json`` to ``out``.

    Raises:
        UnsupportedError: the draft's vocabulary is not the target's.
        SpecError: a tensor is missing or damaged.
    """
    import openvino as ov

    target_arch = read_architecture(checkpoint)
    if draft is not None:
        check_draft(target_arch, read_architecture(draft))
    target = _compile(checkpoint, target_arch, out, "target", progress)
    compiled_draft = None
    if draft is not None:
        compiled_draft = _compile(draft, read_architecture(draft), out / DRAFT, "draft", progress)
    engine = CompiledEngine("openvino", ov.get_version(), target, compiled_draft)
    (out / DESCRIPTION).write_text(json.dumps(asdict(engine), indent=2) + "\n")
    return engine


def check_draft(target: Architecture, draft: Architecture) -> None:
    """Refuse a draft whose token ids mean something else.

    Raises:
        UnsupportedError: the vocabulary sizes differ.
    """
    if draft.vocab_size != target.vocab_size:
        raise UnsupportedError(
            f"the draft's vocabulary has {draft.vocab_size} tokens, "
            f"the target's {target.vocab_size}",
            where="engine.speculation.draft",
            hint="choose a draft of the same model family, or derive one with derive_layers",
        )


def _compile(
    checkpoint: Path, arch: Architecture, out: Path, what: str, progress: Progress
) -> CompiledModel:
    import openvino as ov

    out.mkdir(parents=True, exist_ok=True)
    source = UnifiedCheckpoint(checkpoint)
    progress.start(f"compile {what}", total=arch.num_layers * LINEARS_PER_LAYER, unit="layers")
    weights = CheckpointWeights(source, tied=arch.tied_embeddings, on_layer=progress.advance)
    model = graph.build(arch, weights)
    ov.save_model(model, out / MODEL, compress_to_fp16=False)
    size = (out / MODEL).with_suffix(".bin").stat().st_size
    progress.finish(f"{size / 1e6:.0f} MB of weights")
    return CompiledModel(
        model_type=arch.model_type,
        vocab_size=arch.vocab_size,
        max_position=arch.max_position,
        carried=dict(sorted(weights.carried.items())),
        kv_cache=source.quantization.kv_cache_quant_algo,
    )
