"""What is loaded beside a model: LoRA adapters, and heads for speculative decoding.

They are no whole checkpoints: without a tokenizer, and with tensors that no config.json foretells.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from toolkit.checkpoint import hub
from toolkit.errors import SpecError
from toolkit.progress import Progress

_SUFFIXES = (".json", ".safetensors", ".npy")
_PICKLES = (".bin", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the deployment file names.

    Attributes:
        source: A directory, or ``hf://owner/name@revision``.
        where: The field that names it.
        what: For messages.
    """

    source: str
    where: str
    what: str


def locate(part: Part, *, progress: Progress, offline: bool) -> Path:
    """The part's directory; of a hub repository only configuration and weights are fetched.

    Raises:
        SpecError: there is none, or its weights are pickles.
        EnvironmentError_, ValidationFailed: as any fetch.
    """
    if part.source.startswith(hub.SCHEME):
        path = _from_hub(part, progress, hub.is_offline(offline))
    else:
        path = Path(part.source).expanduser()
    if not path.is_dir():
        raise SpecError(
            f"there is no {part.source}",
            where=part.where,
            hint=f"name a folder that holds {part.what}, or hf://owner/name@revision",
        )
    _require_weights([file.name for file in path.iterdir()], part)
    return path


def put(source: Path, out: Path) -> None:
    """Link the part's files into ``out``, or copy them where the file system has no links."""
    out.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if not file.is_file() or not file.name.endswith(_SUFFIXES):
            continue
        try:
            os.link(file.resolve(), out / file.name)
        except OSError:
            shutil.copyfile(file, out / file.name)


def _require_weights(names: list[str], part: Part) -> None:
    if any(name.endswith((".safetensors", ".npy")) for name in names):
        return
    pickles = any(name.endswith(_PICKLES) for name in names)
    raise SpecError(
        f"{part.source} holds pickle files only" if pickles else f"{part.source} has no weights",
        where=part.where,
        hint="pickles can run any code when they are loaded: convert them to safetensors"
        if pickles
        else f"name a folder that holds {part.what}",
    )


def _from_hub(part: Part, progress: Progress, offline: bool) -> Path:
    reference = hub.parse_reference(part.source)
    if offline:
        return _cached(reference)
    listing = hub.look_up(reference)
    files = [file for file in listing.files if _is_ours(file.name)]
    _require_weights([file.name for file in listing.files], part)
    return hub.download(reference, listing.commit, files, progress)


def _is_ours(name: str) -> bool:
    return "/" not in name and name.endswith(_SUFFIXES)


def _cached(reference: hub.HubReference) -> Path:
    from huggingface_hub import snapshot_download

    from toolkit.checkpoint.hub_errors import translated

    with translated(reference.repo, reference.revision):
        return Path(
            snapshot_download(
                reference.repo,
                revision=reference.revision,
                allow_patterns=[f"*{suffix}" for suffix in _SUFFIXES],
                cache_dir=hub.cache_directory(),
                local_files_only=True,
            )
        )
