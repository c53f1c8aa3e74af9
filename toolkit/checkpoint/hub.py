"""Checkpoints from the Hugging Face hub: pinned to a commit, checked, kept in the hub's cache."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.checkpoint.digests import Digest
from toolkit.checkpoint.files import belongs, ensure_space, is_pickle, members
from toolkit.checkpoint.growth import watch_growth
from toolkit.checkpoint.hub_errors import translated
from toolkit.checkpoint.known_digests import digest_of_etag, known_digests
from toolkit.errors import SpecError, ValidationFailed
from toolkit.progress import Progress

SCHEME = "hf://"
_REFERENCE = re.compile(
    r"^hf://(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?:/(?P<file>[^@]+\.gguf))?(?:@(?P<revision>[^@\s]+))?$"
)
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_WORKERS = 4
"""Files downloaded at once; a killed download loses what it had of these, not of the others."""


@dataclass(frozen=True)
class HubReference:
    """``hf://owner/name[/file.gguf][@revision]``."""

    repo: str
    revision: str
    file: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, so that nothing has to be asked."""
        return bool(_COMMIT.match(self.revision))

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}{f'/{self.file}' if self.file else ''}@{self.revision}"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository at a commit: ``size`` in bytes, and its digest."""

    name: str
    size: int
    digest: Digest | None


@dataclass(frozen=True)
class HubListing:
    """The files of one commit."""

    commit: str
    files: tuple[HubFile, ...]


def parse_reference(source: str) -> HubReference:
    """Read ``hf://owner/name[/file.gguf][@revision]``; without a revision it is ``main``.

    Raises:
        SpecError: another form.
    """
    match = _REFERENCE.match(source)
    if not match:
        raise SpecError(
            f"{source!r} names no model of the hub",
            where="model.source",
            hint="write hf://owner/name@revision, where @revision is a branch, tag or commit",
        )
    return HubReference(match["repo"], match["revision"] or "main", match["file"])


def is_offline(asked: bool = False) -> bool:
    """Whether the hub must not be called: by request or by huggingface-hub's own variables."""
    variables = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return asked or any(value.upper() in {"1", "ON", "YES", "TRUE"} for value in variables)


def look_up(reference: HubReference) -> HubListing:
    """Ask the hub which commit the revision is now, and what it holds.

    Raises:
        SpecError: no such repository or revision.
        EnvironmentError_: no access, or no connection.
    """
    from huggingface_hub import HfApi

    with translated(reference.repo, reference.revision):
        info = HfApi(endpoint=_endpoint()).model_info(
            reference.repo, revision=reference.revision, files_metadata=True, timeout=30
        )
    files = []
    for sibling in info.siblings or ():
        lfs = sibling.lfs
        etag = lfs["sha256"] if lfs else sibling.blob_id
        digest = digest_of_etag(etag) if etag else None
        files.append(HubFile(sibling.rfilename, int(sibling.size or 0), digest))
    if not info.sha:
        raise SpecError(f"the hub names no commit for {reference}", where=str(reference))
    return HubListing(info.sha, tuple(files))


def select(
    reference: HubReference, files: Iterable[HubFile], allow_pickle: Collection[str]
) -> tuple[HubFile, ...]:
    """The files that make the checkpoint: safetensors, tokenizer and configs, or one GGUF.

    Raises:
        SpecError: the repository has no weights that may be taken.
    """
    names = {file.name: file for file in files}
    if reference.file:
        if reference.file not in names:
            raise _no_file(reference, [name for name in names if name.endswith(".gguf")])
        return (names[reference.file],)
    chosen = [file for file in names.values() if belongs(file.name, allow_pickle)]
    if any(file.name.endswith(".safetensors") for file in chosen):
        # The same weights again as a pickle would only cost the download.
        return tuple(file for file in chosen if not is_pickle(file.name))
    if any(is_pickle(file.name) for file in chosen):
        return tuple(chosen)
    raise _no_weights(reference, list(names))


def _no_file(reference: HubReference, ggufs: list[str]) -> SpecError:
    return SpecError(
        f"{reference.repo} has no file {reference.file!r}",
        where=str(reference),
        hint=f"it has {', '.join(sorted(ggufs))}" if ggufs else "it has no .gguf file at all",
    )


def _no_weights(reference: HubReference, names: list[str]) -> SpecError:
    pickles = sorted(name for name in names if "/" not in name and is_pickle(name))
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if pickles:
        hint = (
            f"its weights are pickle files, which can run any code when they are loaded; "
            f"if you trust them: model.allow_pickle: [{', '.join(pickles)}]"
        )
    elif ggufs:
        hint = f"name one of its files: {SCHEME}{reference.repo}/{ggufs[0]}"
    else:
        hint = "look at its files on the hub: it may hold an adapter, or no model"
    return SpecError(f"{reference.repo} has no *.safetensors", where=str(reference), hint=hint)


def download(
    reference: HubReference, commit: str, files: Collection[HubFile], progress: Progress
) -> Path:
    """The directory of ``commit`` in the hub's cache, with ``files`` in it and checked.

    What is there is not fetched again, a dropped connection is resumed where it broke, and a
    file whose digest is wrong is fetched once more.

    Raises:
        EnvironmentError_: no connection, no access or no space.
        ValidationFailed: a file is damaged even when fetched a second time.
    """
    missing = [file for file in files if not _cached(reference.repo, commit, file.name)]
    ensure_space(cache_directory(), sum(file.size for file in missing))
    snapshot = _fetch(reference, commit, files, missing, progress)
    damaged = _damaged(snapshot, files, progress)
    if damaged:
        progress.note(f"fetched again, since damaged: {', '.join(file.name for file in damaged)}")
        for file in damaged:
            _forget(snapshot / file.name)
        snapshot = _fetch(reference, commit, files, damaged, progress)
        damaged = _damaged(snapshot, damaged, progress)
    if damaged:
        for file in damaged:
            _forget(snapshot / file.name)
        raise ValidationFailed(
            f"{damaged[0].name} arrives damaged: its digest is not the hub's",
            where=str(reference),
            hint="a proxy or mirror between here and the hub alters it; check HF_ENDPOINT",
        )
    return snapshot


def _fetch(
    reference: HubReference,
    commit: str,
    files: Collection[HubFile],
    missing: Collection[HubFile],
    progress: Progress,
) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(revision: str) -> Path:
        return Path(
            snapshot_download(
                reference.repo,
                revision=revision,
                allow_patterns=[file.name for file in files],
                cache_dir=cache_directory(),
                endpoint=_endpoint(),
                max_workers=_WORKERS,
            )
        )

    total = sum(file.size for file in missing)
    with _without_bars(), translated(reference.repo, reference.revision):
        if not missing:
            return fetch(commit)
        folder = cache_directory() / f"models--{reference.repo.replace('/', '--')}"
        with watch_growth(f"download {reference.repo}", folder, total, progress):
            # Asked by its name, the branch is remembered for the day without network.
            snapshot = fetch(reference.revision)
            return snapshot if snapshot.name == commit else fetch(commit)


def cached(reference: HubReference) -> tuple[str, Path]:
    """Commit and directory of a revision that is in the hub's cache, without any call.

    Raises:
        EnvironmentError_: it is not there, or not whole.
    """
    from huggingface_hub import snapshot_download

    with translated(reference.repo, reference.revision):
        path = Path(
            snapshot_download(
                reference.repo,
                revision=reference.revision,
                allow_patterns=[reference.file] if reference.file else ["config.json"],
                cache_dir=cache_directory(),
                local_files_only=True,
            )
        )
    return path.name, path


def cached_files(
    reference: HubReference, snapshot: Path, allow_pickle: Collection[str]
) -> tuple[HubFile, ...]:
    """Files of the checkpoint that the cache holds, with the digests that it knows."""
    digests = known_digests(snapshot)
    names = (reference.file,) if reference.file else members(snapshot, allow_pickle)
    listed = [
        HubFile(name, (snapshot / name).stat().st_size, digests.get(name))
        for name in names
        if (snapshot / name).is_file()
    ]
    return select(reference, listed, allow_pickle)


def check_cached(
    reference: HubReference, snapshot: Path, files: Collection[HubFile], progress: Progress
) -> None:
    """Hold cached files against their digests.

    Raises:
        ValidationFailed: one is damaged.
    """
    damaged = _damaged(snapshot, files, progress)
    if damaged:
        raise ValidationFailed(
            f"{damaged[0].name} is damaged in the hub's cache",
            where=str(snapshot),
            hint="fetch it again on a machine with a connection",
        )


def cache_directory() -> Path:
    """huggingface-hub's cache, by the variables it documents itself."""
    from huggingface_hub import constants

    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expandvars(chosen)).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _cached(repo: str, commit: str, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, name, cache_dir=cache_directory(), revision=commit)
    return isinstance(path, str)


def _damaged(snapshot: Path, files: Collection[HubFile], progress: Progress) -> list[HubFile]:
    checked = [file for file in files if file.digest]
    progress.start("check digests", sum(file.size for file in checked), "B")
    damaged = [
        file
        for file in checked
        if file.digest and file.digest.of(snapshot / file.name, progress.advance) != file.digest
    ]
    progress.finish(f"{len(checked)} files")
    return damaged


def _forget(path: Path) -> None:
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


@contextmanager
def _without_bars() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
