"""Get the model of a deployment: from the hub, a directory, a GGUF file or a sample."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from toolkit.checkpoint import converter, hub
from toolkit.checkpoint.digests import DigestCache
from toolkit.checkpoint.files import expanded, is_pickle, link_or_copy, members
from toolkit.checkpoint.known_digests import known_digests
from toolkit.checkpoint.samples import SCHEME as SAMPLE
from toolkit.checkpoint.samples import build_sample, find_sample
from toolkit.checkpoint.verification import verify
from toolkit.errors import EnvironmentError_, SpecError, ValidationFailed
from toolkit.progress import Progress
from toolkit.spec.models import ModelSource
from toolkit.workspace import Artifact, Json, Workspace
from toolkit.workspace.manifest import artifact_key

KIND = "checkpoint"


def fetch(
    source: ModelSource, workspace: Workspace, *, progress: Progress, offline: bool = False
) -> Artifact:
    """The checkpoint of ``source`` as an artifact, verified; at once if it is there.

    The artifact's files are hard links where the weights already lie on the same file system
    (a directory, the hub's cache). Its key follows from contents (or the commit), not from
    paths and times.

    Args:
        source: ``hf://owner/name[/file.gguf][@revision]``, ``sample:NAME``, a ``.gguf`` file or
            a directory.
        workspace: Where artifacts live.
        progress: Told about downloads, digests and conversions.
        offline: Use only what is on this machine (so do HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE).

    Raises:
        SpecError: the source does not exist, or is no sound checkpoint.
        UnsupportedError: a GGUF file of a kind that is not converted.
        EnvironmentError_: no connection, no access, no space, not in the cache.
        ValidationFailed: a download is damaged.
    """
    text = source.source
    if text.startswith(hub.SCHEME):
        return _from_hub(source, workspace, progress, hub.is_offline(offline))
    if text.startswith(SAMPLE):
        return _from_sample(text, workspace, progress, hub.is_offline(offline))
    path = expanded(text)
    if path.suffix == ".gguf" and path.is_file():
        return _from_gguf(path, workspace, progress)
    if path.is_dir():
        return _from_directory(path, source.allow_pickle, workspace, progress)
    raise _unknown(text, path)


def check_source(text: str) -> Path | None:
    """Refuse what can be no source, without network; the local directory or file if it is one.

    Raises:
        SpecError: there is no such sample, file or directory, or it is no name on the hub.
    """
    if text.startswith(hub.SCHEME):
        hub.parse_reference(text)
        return None
    if text.startswith(SAMPLE):
        find_sample(text)
        return None
    path = expanded(text)
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return path
    raise _unknown(text, path)


def _unknown(text: str, path: Path) -> SpecError:
    hint = "write hf://owner/name@revision, sample:smollm2-135m, a directory or a .gguf file"
    if path.is_file():
        return SpecError(f"{text} is a file, but no .gguf file", where="model.source", hint=hint)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        hint = f"for the model of that name on the hub write hf://{text}"
    return SpecError(f"there is no {text}", where="model.source", hint=hint)


def _from_sample(text: str, workspace: Workspace, progress: Progress, offline: bool) -> Artifact:
    sample = find_sample(text)

    def build(out: Path) -> None:
        build_sample(sample, out, progress, offline=offline)
        verify(out, progress=progress)
        _note(out, source=text, licence=sample.licence, model=sample.model)

    return workspace.produce(KIND, sample.inputs(), build, progress=progress)


def _from_gguf(path: Path, workspace: Workspace, progress: Progress) -> Artifact:
    from toolkit.checkpoint.gguf import convert

    digest = DigestCache(path.parent).sha256([path.name], progress)[path.name]
    inputs: dict[str, Json] = {
        "source": "gguf",
        "sha256": digest,
        "converter": converter.converter(),
    }

    def build(out: Path) -> None:
        convert(path, out, progress)
        verify(out, progress=progress)
        _note(out, source=str(path.resolve()))

    return workspace.produce(KIND, inputs, build, progress=progress)


def _from_directory(
    path: Path, allow_pickle: Collection[str], workspace: Workspace, progress: Progress
) -> Artifact:
    verify(path, allow_pickle, digests=False)
    names = members(path, allow_pickle)
    digests = DigestCache(path).sha256(names, progress)
    _hold_against_known(path, digests)

    def build(out: Path) -> None:
        _fill(out, {name: path / name for name in names}, progress)
        verify(out, progress=progress)
        _note(out, source=str(path.resolve()))

    inputs: dict[str, Json] = {"source": "files", "files": digests}
    artifact = workspace.produce(KIND, inputs, build, progress=progress)
    if not _intact(artifact, digests, progress):
        # A linked file was edited in place through its other name, and then put back.
        progress.note(f"checkpoint {artifact.path.name} was edited and is made anew")
        workspace.remove(artifact)
        artifact = workspace.produce(KIND, inputs, build, progress=progress)
        if not _intact(artifact, digests, progress):
            workspace.remove(artifact)
            raise EnvironmentError_(
                "the checkpoint changed while it was read",
                where=str(path),
                hint="run the same again when nothing writes there any more",
            )
    return artifact


def _hold_against_known(path: Path, digests: Mapping[str, str]) -> None:
    for name, known in known_digests(path).items():
        if known.algorithm == "sha256" and digests.get(name, known.value) != known.value:
            raise ValidationFailed(
                f"{name} is not what it was: its SHA-256 differs from the one on record",
                where=str(path / name),
                hint="it was changed or damaged; if the change is wanted, remove the record "
                "(SHA256SUMS, NAME.sha256 or .cache/huggingface)",
            )


def _intact(artifact: Artifact, digests: Mapping[str, str], progress: Progress) -> bool:
    files = artifact.manifest.files
    linked = {name: digest for name, digest in digests.items() if name in files}
    cache = DigestCache(artifact.path)
    if not artifact.reused:
        # The workspace has just read every file.
        cache.remember({name: files[name].sha256 for name in linked})
    return cache.sha256(linked, progress) == linked


def _fill(out: Path, files: Mapping[str, Path], progress: Progress) -> None:
    """Link the files into ``out``; pickles are converted to safetensors instead."""
    from toolkit.checkpoint.pickled import convert_pickles

    pickles = [name for name in files if is_pickle(name)]
    plain = {name: path for name, path in files.items() if name not in pickles}
    link_or_copy(plain, out, progress)
    if pickles:
        convert_pickles(files[pickles[0]].parent, pickles, out, progress)


def _from_hub(
    source: ModelSource, workspace: Workspace, progress: Progress, offline: bool
) -> Artifact:
    reference = hub.parse_reference(source.source)
    allow = source.allow_pickle
    if reference.pinned:
        inputs = _hub_inputs(reference, reference.revision, allow)
        if found := workspace.find(KIND, artifact_key(KIND, inputs)):
            return found
    if offline:
        return _from_hub_cache(reference, allow, workspace, progress)
    listing = hub.look_up(reference)

    def build(out: Path) -> None:
        files = hub.select(reference, listing.files, allow)
        snapshot = hub.download(reference, listing.commit, files, progress)
        _adopt(reference, listing.commit, snapshot, files, out, progress)

    inputs = _hub_inputs(reference, listing.commit, allow)
    return workspace.produce(KIND, inputs, build, progress=progress)


def _from_hub_cache(
    reference: hub.HubReference, allow: Collection[str], workspace: Workspace, progress: Progress
) -> Artifact:
    try:
        commit, snapshot = hub.cached(reference)
    except EnvironmentError_:
        # The artifact outlives the hub's cache.
        if found := _latest(reference, workspace):
            return found
        raise
    files = hub.cached_files(reference, snapshot, allow)

    def build(out: Path) -> None:
        hub.check_cached(reference, snapshot, files, progress)
        _adopt(reference, commit, snapshot, files, out, progress)

    inputs = _hub_inputs(reference, commit, allow)
    return workspace.produce(KIND, inputs, build, progress=progress)


def _adopt(
    reference: hub.HubReference,
    commit: str,
    snapshot: Path,
    files: Collection[hub.HubFile],
    out: Path,
    progress: Progress,
) -> None:
    """Make the checkpoint of files that lie, checked, in the hub's cache."""
    from toolkit.checkpoint.gguf import convert

    if reference.file:
        convert(snapshot / reference.file, out, progress)
    else:
        _fill(out, {file.name: snapshot / file.name for file in files}, progress)
    verify(out, progress=progress)
    _note(
        out,
        source=str(reference),
        repository=reference.repo,
        revision=reference.revision,
        commit=commit,
    )


def _hub_inputs(
    reference: hub.HubReference, commit: str, allow: Collection[str]
) -> dict[str, Json]:
    inputs: dict[str, Json] = {"source": "hub", "repository": reference.repo, "commit": commit}
    if reference.file:
        inputs |= {"file": reference.file, "converter": converter.converter()}
    if allow:
        inputs["allow_pickle"] = sorted(allow)
    return inputs


def _latest(reference: hub.HubReference, workspace: Workspace) -> Artifact | None:
    for artifact in reversed(workspace.list(KIND)):
        notes = artifact.manifest.notes
        if isinstance(notes, dict) and notes.get("source") == str(reference):
            return workspace.find(KIND, artifact.key)
    return None


def _note(out: Path, **notes: str) -> None:
    (out / "notes.json").write_text(json.dumps(notes))
