"""Is this directory a whole, sound and safe checkpoint? Every fault is found, not the first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from toolkit.checkpoint.architecture import (
    CONFIG,
    Architecture,
    expected_tensors,
    read_architecture,
    read_json,
)
from toolkit.checkpoint.digests import Digest
from toolkit.checkpoint.files import TOKENIZERS, is_pickle, members
from toolkit.checkpoint.known_digests import known_digests
from toolkit.checkpoint.values import unsound_values
from toolkit.checkpoint.weights import Weights, read_weights
from toolkit.errors import SpecError
from toolkit.progress import Progress, Silent

T = TypeVar("T")

QUANT_CONFIG = "hf_quant_config.json"
_PACKED = ("U8", "I8", "I32")
_HARMLESS = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
_SCALES = ("_scale", "_scale_2", ".input_scale", ".k_scale", ".v_scale", "_zero_point", ".scale")


@dataclass(frozen=True)
class Problem:
    """One fault: what, where and what to do. ``fatal`` ones forbid to use the checkpoint."""

    message: str
    where: str
    hint: str | None = None
    fatal: bool = True


@dataclass(frozen=True)
class CheckpointReport:
    """What :func:`examine` found out about a directory."""

    path: Path
    architecture: Architecture | None
    files: tuple[str, ...]
    tensors: int
    digests_checked: int
    values_checked: bool
    problems: tuple[Problem, ...]

    @property
    def faults(self) -> tuple[Problem, ...]:
        """The problems that forbid to use the checkpoint."""
        return tuple(problem for problem in self.problems if problem.fatal)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that do not."""
        return tuple(problem for problem in self.problems if not problem.fatal)


def verify(
    path: Path,
    allow_pickle: Collection[str] = (),
    *,
    deep: bool = False,
    digests: bool = True,
    progress: Progress | None = None,
) -> CheckpointReport:
    """:func:`examine`, and an error unless the checkpoint can be used.

    Raises:
        SpecError: the first fault; ``details`` lists the others.
    """
    report = examine(path, allow_pickle, deep=deep, digests=digests, progress=progress)
    if report.faults:
        first, *others = report.faults
        raise SpecError(
            first.message,
            where=first.where,
            hint=first.hint,
            details=[f"{other.where}: {other.message}" for other in others],
        )
    return report


def examine(
    path: Path,
    allow_pickle: Collection[str] = (),
    *,
    deep: bool = False,
    digests: bool = True,
    progress: Progress | None = None,
) -> CheckpointReport:
    """Check a checkpoint directory without torch and, unless ``deep``, without its values.

    Checked are: config.json, headers and sizes of all weight files, the index, names and shapes
    against the config, pickles and code, the tokenizer, and digests that are known.

    Args:
        path: The directory.
        allow_pickle: Names of pickle files that are accepted.
        deep: Read every tensor and look for NaN, infinities and matrices of zeros.
        digests: Read files whose digest is known and compare.
        progress: Told about ``deep`` and ``digests``, which read every byte.

    Raises:
        SpecError: ``path`` is no directory.
    """
    if not path.is_dir():
        raise SpecError("no such checkpoint directory", where=str(path))
    progress = progress or Silent()
    problems: list[Problem] = []
    arch = _attempt(lambda: read_architecture(path), problems)
    pickles = [name for name in members(path, allow_pickle) if is_pickle(name)]
    weights = None if pickles else _attempt(lambda: read_weights(path), problems)
    problems += _unsafe(path, allow_pickle)
    problems += _tokenizer(path, arch)
    if arch and weights:
        problems += _tensors(arch, weights, quantized=_is_quantized(path, arch))
    known = known_digests(path) if digests else {}
    problems += _digests(path, progress, known) if known else ()
    if deep and weights:
        problems += _values(weights, progress)
    return CheckpointReport(
        path=path,
        architecture=arch,
        files=members(path, allow_pickle),
        tensors=len(weights.tensors) if weights else 0,
        digests_checked=len(known),
        values_checked=deep and weights is not None,
        problems=tuple(problems),
    )


def _attempt(read: Callable[[], T], problems: list[Problem]) -> T | None:
    try:
        return read()
    except SpecError as error:
        problems.append(Problem(error.message, error.where or "", error.hint))
        return None


def _unsafe(path: Path, allow_pickle: Collection[str]) -> Iterator[Problem]:
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    for name in names:
        if is_pickle(name) and name not in allow_pickle:
            yield Problem(
                f"{name} is a pickle file, which can run any code when it is loaded",
                str(path / name),
                "remove it: the safetensors are used"
                if has_safetensors
                else f"convert it to safetensors, or accept it: model.allow_pickle: [{name}]",
                fatal=not has_safetensors,
            )
    config = path / CONFIG
    if config.exists() and (_attempt(lambda: read_json(config), []) or {}).get("auto_map"):
        yield Problem(
            "the model names code of its own (auto_map), which the toolkit never runs",
            str(config),
            "if its model_type is one of the library's own, remove auto_map",
            fatal=False,
        )


def _tokenizer(path: Path, arch: Architecture | None) -> Iterator[Problem]:
    if not any((path / name).exists() for name in TOKENIZERS):
        yield Problem("no tokenizer is here", str(path), f"it needs one of {', '.join(TOKENIZERS)}")
    file = path / "tokenizer.json"
    if not arch or not file.exists():
        return
    problems: list[Problem] = []
    content = _attempt(lambda: read_json(file), problems)
    yield from problems
    largest = _largest_token(content) if content else -1
    if largest >= arch.vocab_size:
        yield Problem(
            f"the tokenizer has token {largest}, but the model's vocabulary ends at "
            f"{arch.vocab_size - 1}",
            str(file),
            "tokenizer and weights are of different models",
        )
    for token in arch.eos_token_ids:
        if token >= arch.vocab_size:
            yield Problem(f"eos_token_id {token} is outside the vocabulary", str(path / CONFIG))


def _largest_token(content: dict[str, object]) -> int:
    ids = [-1]
    model, added = content.get("model"), content.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        ids += [token for token in vocabulary.values() if isinstance(token, int)]
    elif isinstance(vocabulary, list):
        ids.append(len(vocabulary) - 1)
    for entry in added if isinstance(added, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("id"), int):
            ids.append(entry["id"])
    return max(ids)


def _is_quantized(path: Path, arch: Architecture) -> bool:
    return arch.quantization is not None or (path / QUANT_CONFIG).exists()


def _tensors(arch: Architecture, weights: Weights, *, quantized: bool) -> Iterator[Problem]:
    if arch.family == "other":
        yield Problem(
            f"tensors of model type {arch.model_type!r} are not known, so shapes are unchecked",
            str(weights.directory / CONFIG),
            fatal=False,
        )
        return
    if quantized and arch.quantization not in (None, "modelopt"):
        yield Problem(
            f"weights are packed by {arch.quantization!r}, so shapes are unchecked",
            str(weights.directory / CONFIG),
            fatal=False,
        )
        return
    expected = expected_tensors(arch)
    for name, shape in expected.items():
        found = weights.tensors.get(name)
        if found is None:
            yield Problem(
                f"tensor {name!r} is missing",
                str(weights.directory),
                "the checkpoint is incomplete, or config.json belongs to another model",
            )
        elif found[1].shape != shape and not (quantized and found[1].dtype in _PACKED):
            yield Problem(
                f"tensor {name!r} is {_shape(found[1].shape)}, config.json asks for "
                f"{_shape(shape)}",
                str(weights.directory / found[0]),
                "weights and config.json are of different models",
            )
    yield from _surplus(weights, expected, quantized)


def _surplus(
    weights: Weights, expected: dict[str, tuple[int, ...]], quantized: bool
) -> Iterator[Problem]:
    known = _HARMLESS + (_SCALES if quantized else ()) + ("lm_head.weight",)
    extra = [name for name in weights.tensors if name not in expected and not name.endswith(known)]
    if extra:
        others = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        yield Problem(
            f"tensor {extra[0]!r}{others}: the architecture has no use for it",
            str(weights.directory / weights.tensors[extra[0]][0]),
            fatal=False,
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _digests(path: Path, progress: Progress, known: dict[str, Digest]) -> Iterator[Problem]:
    progress.start("check digests", sum((path / name).stat().st_size for name in known), "B")
    for name, digest in known.items():
        if digest.of(path / name, progress.advance) != digest:
            yield Problem(
                f"{name} is not what it was: its {digest.algorithm} digest differs",
                str(path / name),
                "it was changed or damaged: fetch the checkpoint again",
            )
    progress.finish(f"{len(known)} files")


def _values(weights: Weights, progress: Progress) -> Iterator[Problem]:
    progress.start("read weights", sum(info.nbytes for info in weights), "B")
    for name, (file, info) in weights.tensors.items():
        fault = unsound_values(weights.directory / file, info)
        if fault:
            yield Problem(f"tensor {name!r} {fault}", str(weights.directory / file))
        progress.advance(info.nbytes)
    progress.finish(f"{len(weights.tensors)} tensors")
