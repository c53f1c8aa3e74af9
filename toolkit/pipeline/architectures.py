"""The shape of a deployment's model without its weights: one config.json is enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toolkit.capacity.mixture import with_experts
from toolkit.checkpoint import hub
from toolkit.checkpoint.architecture import (
    CONFIG,
    Architecture,
    architecture_of,
    read_architecture,
    read_json,
)
from toolkit.checkpoint.samples import SCHEME as SAMPLE
from toolkit.checkpoint.samples import find_sample
from toolkit.checkpoint.sources import KIND
from toolkit.errors import EnvironmentError_, SpecError
from toolkit.spec.models import Deployment, DraftModel
from toolkit.workspace import Artifact, Workspace
from toolkit.workspace.manifest import artifact_key


def target_architecture(
    deployment: Deployment,
    workspace: Workspace,
    *,
    model_config: Path | None = None,
    offline: bool = False,
) -> Architecture:
    """The architecture of ``model.source``; no weight is read or fetched.

    Args:
        deployment: With absolute paths.
        workspace: Where an earlier build may have put the checkpoint.
        model_config: The model's config.json (or its folder), in place of looking for one.
        offline: Do not ask the hub.

    Raises:
        SpecError: no config.json is at hand; the hint says how to give one.
        EnvironmentError_: the hub was asked and did not answer.
    """
    if model_config is not None:
        return _given(model_config)
    return _of_source(deployment.model.source, workspace, offline, option="--model-config")


def draft_architecture(
    deployment: Deployment,
    target: Architecture,
    workspace: Workspace,
    *,
    model_config: Path | None = None,
    offline: bool = False,
) -> Architecture | None:
    """The architecture of the draft model; None where there is none.

    Raises:
        SpecError, EnvironmentError_: as :func:`target_architecture`.
    """
    chosen = deployment.engine.speculation
    if not isinstance(chosen, DraftModel):
        return None
    if model_config is not None:
        return _given(model_config)
    if chosen.draft.derive_layers is not None:
        return replace(target, num_layers=chosen.draft.derive_layers)
    assert chosen.draft.source is not None, "a draft has a source or layers"
    return _of_source(chosen.draft.source, workspace, offline, option="--draft-config")


def _given(path: Path) -> Architecture:
    if path.is_dir():
        return _of_folder(path)
    return _of_config(path, str(path))


def _of_folder(path: Path) -> Architecture:
    return with_experts(read_architecture(path), read_json(path / CONFIG))


def _of_config(path: Path, where: str) -> Architecture:
    config = read_json(path)
    return with_experts(architecture_of(config, {}, where=where), config)


def _of_source(source: str, workspace: Workspace, offline: bool, *, option: str) -> Architecture:
    if source.startswith(hub.SCHEME):
        return _of_hub(source, workspace, hub.is_offline(offline), option)
    if source.startswith(SAMPLE):
        key = artifact_key(KIND, find_sample(source).inputs())
        if found := workspace.find(KIND, key):
            return _of_folder(found.path)
        raise _nothing(source, option)
    path = Path(source).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return _of_gguf(path)
    if path.is_dir():
        return _of_folder(path)
    raise _nothing(source, option)


def _of_gguf(path: Path) -> Architecture:
    from toolkit.checkpoint.gguf_config import config_of, generation_config_of
    from toolkit.checkpoint.gguf_metadata import open_gguf

    file = open_gguf(path)
    # The type that it is converted to decides nothing that is planned here.
    config, generation = config_of(file, "bfloat16"), generation_config_of(file)
    return architecture_of(config, generation, where=str(path))


def _of_hub(source: str, workspace: Workspace, offline: bool, option: str) -> Architecture:
    reference = hub.parse_reference(source)
    if found := _fetched(reference, workspace):
        return _of_folder(found.path)
    if reference.file:
        raise _nothing(source, option)
    try:
        return _of_config(_hub_config(reference, offline), source)
    except EnvironmentError_ as error:
        way = f"{option} FILE takes the model's {CONFIG} from a file"
        raise EnvironmentError_(
            error.message,
            where=error.where,
            hint=f"{error.hint}; or {way}" if error.hint else way,
            details=error.details,
        ) from error


def _hub_config(reference: hub.HubReference, offline: bool) -> Path:
    """config.json of the commit that the revision is now, or was when there was a network."""
    if not (offline or reference.pinned):
        try:
            # Fails at once where there is no network; a download would retry for long.
            return _download(reference, hub.look_up(reference).commit, local=False)
        except EnvironmentError_ as error:
            try:
                return _download(reference, reference.revision, local=True)
            except EnvironmentError_:
                raise error from None
    try:
        return _download(reference, reference.revision, local=True)
    except EnvironmentError_:
        if offline:
            raise
    return _download(reference, hub.look_up(reference).commit, local=False)


def _download(reference: hub.HubReference, revision: str, *, local: bool) -> Path:
    from huggingface_hub import hf_hub_download

    from toolkit.checkpoint.hub_errors import translated

    with translated(reference.repo, revision):
        return Path(
            hf_hub_download(
                reference.repo,
                CONFIG,
                revision=revision,
                cache_dir=hub.cache_directory(),
                local_files_only=local,
            )
        )


def _fetched(reference: hub.HubReference, workspace: Workspace) -> Artifact | None:
    """The newest checkpoint in the workspace that came from ``reference``."""
    for artifact in reversed(workspace.list(KIND)):
        notes = artifact.manifest.notes
        if isinstance(notes, dict) and notes.get("source") == str(reference):
            return workspace.find(KIND, artifact.key)
    return None


def _nothing(source: str, option: str) -> SpecError:
    return SpecError(
        f"the sizes of {source} are not known here: it is not fetched yet",
        where="model.source" if option == "--model-config" else "engine.speculation.draft.source",
        hint=f"{option} FILE takes the model's {CONFIG} from a file; toolkit build fetches it all",
    )
