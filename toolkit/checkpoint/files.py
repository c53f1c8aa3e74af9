"""Which files make up a checkpoint, and how they get into an artifact without copying."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from toolkit.errors import EnvironmentError_
from toolkit.progress import Progress
from toolkit.spec.units import format_size

SAFETENSORS = "*.safetensors"
INDEX = "model.safetensors.index.json"

WEIGHT_PATTERNS = (SAFETENSORS, "*.safetensors.index.json")
SMALL_PATTERNS = (
    "config.json",
    "generation_config.json",
    "hf_quant_config.json",
    "quantize_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE*",
    "USE_POLICY*",
)
LEFT_OUT = ("consolidated*.safetensors", "adapter_model*.safetensors", "training_args*")
"""Second copies of the weights in their maker's own layout, and what is no checkpoint."""

PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")

DISK_RESERVE = 1 << 30
"""Bytes that stay free: a full disk takes other programs down."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether the file name fits one of the patterns, case as given."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def is_pickle(name: str) -> bool:
    """Whether a file of this name is a pickle, that is: code that runs when it is loaded."""
    return matches(name, PICKLE_PATTERNS) and not matches(name, LEFT_OUT)


def belongs(name: str, allow_pickle: Iterable[str] = ()) -> bool:
    """Whether the file at the top of a checkpoint directory is part of it."""
    if "/" in name or matches(name, LEFT_OUT):
        return False
    return matches(name, WEIGHT_PATTERNS + SMALL_PATTERNS) or name in allow_pickle


def members(directory: Path, allow_pickle: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of the checkpoint's files in ``directory``, sorted; no pickle beside safetensors."""
    names = sorted(
        entry.name
        for entry in directory.iterdir()
        if entry.is_file() and belongs(entry.name, tuple(allow_pickle))
    )
    if any(name.endswith(".safetensors") for name in names):
        return tuple(name for name in names if not is_pickle(name))
    return tuple(names)


def expanded(text: str) -> Path:
    """``text`` as a path, with ``~`` as the home of whom it names; as it is where nobody is so
    called."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def link_or_copy(files: Mapping[str, Path], out: Path, progress: Progress) -> None:
    """Give each of ``files`` a second name in ``out``, or copy it where no hard link can be made
    (another file system, somebody else's file).

    What is there under a name is replaced. Symbolic links are followed, as the hub's cache has
    them.

    Raises:
        EnvironmentError_: no space for all that has to be copied.
    """
    copied: dict[str, Path] = {}
    reasons = []
    for name, source in files.items():
        (out / name).unlink(missing_ok=True)
        real = source.resolve()
        try:
            os.link(real, out / name)
        except OSError as error:
            copied[name] = real
            reasons.append(error.strerror or type(error).__name__)
    if not copied:
        return
    total = sum(real.stat().st_size for real in copied.values())
    ensure_space(out, total)
    progress.note(f"{len(copied)} files are copied, since they cannot be linked: {reasons[0]}")
    progress.start(f"copy {len(copied)} files", total, "B")
    for name, real in copied.items():
        shutil.copyfile(real, out / name)
        progress.advance(real.stat().st_size)
    progress.finish(format_size(total))


def ensure_space(directory: Path, needed: int, *, reserve: int = DISK_RESERVE) -> None:
    """Refuse work that would fill the disk of ``directory``.

    Args:
        directory: Need not exist yet.
        needed: Bytes to be written.
        reserve: Bytes that must stay free beside them.

    Raises:
        EnvironmentError_: less is free.
    """
    there = directory.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed and free < needed + reserve:
        raise EnvironmentError_(
            f"{format_size(needed)} are needed and {format_size(reserve)} must stay free, "
            f"but only {format_size(free)} are free",
            where=str(there),
            hint="free space, or choose another disk: TOOLKIT_WORKSPACE for artifacts, HF_HOME "
            "for downloads from the hub, TOOLKIT_CACHE for other downloads",
        )
