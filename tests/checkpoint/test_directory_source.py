from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tiny_checkpoints import write_checkpoint

from toolkit.checkpoint import digests, fetch, files
from toolkit.errors import EnvironmentError_, SpecError, ValidationFailed
from toolkit.progress import Silent
from toolkit.spec.models import ModelSource
from toolkit.workspace import Artifact, Workspace

WEIGHTS = "model.safetensors"


def get(path: Path | str, workspace: Workspace, allow: tuple[str, ...] = ()) -> Artifact:
    source = ModelSource(source=str(path), allow_pickle=allow)
    return fetch(source, workspace, progress=Silent())


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose contents were hashed."""
    names: list[str] = []
    original = digests.file_digest

    def counted(path: Path, *args: object) -> str:
        names.append(path.name)
        return original(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(digests, "file_digest", counted)
    return names


def test_files_are_linked_not_copied(checkpoint: Path, workspace: Workspace) -> None:
    artifact = get(checkpoint, workspace)
    ours, theirs = (artifact.path / WEIGHTS).stat(), (checkpoint / WEIGHTS).stat()
    assert (ours.st_ino, ours.st_dev) == (theirs.st_ino, theirs.st_dev)


def test_on_another_file_system_they_are_copied(
    checkpoint: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    artifact = get(checkpoint, workspace)
    assert (artifact.path / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert (artifact.path / WEIGHTS).stat().st_ino != (checkpoint / WEIGHTS).stat().st_ino


def test_room_for_all_copies_is_asked_for_before_the_first(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path / "sharded", shards=3)
    sizes = [path.stat().st_size for path in checkpoint.glob("*.safetensors")]
    asked: list[tuple[int, int]] = []

    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # a file of somebody else's

    def too_little(directory: Path, needed: int, *, reserve: int = 0) -> None:
        asked.append((needed, len(list(directory.glob("*.safetensors")))))
        raise EnvironmentError_("too little")

    monkeypatch.setattr(os, "link", forbidden)
    monkeypatch.setattr(files, "ensure_space", too_little)
    with pytest.raises(EnvironmentError_, match="too little"):
        get(checkpoint, workspace)
    ((needed, there),) = asked
    assert there == 0
    assert needed > sum(sizes)
    assert needed == sum(path.stat().st_size for path in checkpoint.iterdir())


def test_the_reason_for_copying_is_told_as_it_is(
    checkpoint: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    class Notes(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    notes: list[str] = []
    monkeypatch.setattr(os, "link", forbidden)
    fetch(ModelSource(source=str(checkpoint)), workspace, progress=Notes())
    assert len(notes) == 1
    assert "Operation not permitted" in notes[0]


def test_only_the_checkpoints_files_are_taken(checkpoint: Path, workspace: Workspace) -> None:
    for name in ("notes.txt", "optimizer.pt", "consolidated.00.safetensors", ".secret"):
        (checkpoint / name).write_text("x")
    (checkpoint / "LICENSE").write_text("Apache-2.0")
    names = set(get(checkpoint, workspace).manifest.files)
    assert names == {
        "LICENSE",
        "config.json",
        "generation_config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_unchanged_weights_are_not_read_again(
    checkpoint: Path, workspace: Workspace, read_bytes: list[str]
) -> None:
    first = get(checkpoint, workspace)
    assert WEIGHTS in read_bytes
    read_bytes.clear()
    second = get(checkpoint, workspace)
    assert second.reused
    assert second.path == first.path
    assert read_bytes == []


def test_without_a_cache_of_digests_files_are_only_read_again(
    checkpoint: Path, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "file" / "cache"))
    first = get(checkpoint, workspace)
    assert get(checkpoint, workspace).key == first.key


def test_the_key_follows_from_contents_not_from_place_or_time(
    checkpoint: Path, workspace: Workspace, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(checkpoint, moved)
    os.utime(moved / WEIGHTS, (1, 1))
    assert get(moved, workspace).key == get(checkpoint, workspace).key


def test_a_changed_file_gives_another_artifact(checkpoint: Path, workspace: Workspace) -> None:
    old = get(checkpoint, workspace)
    config = json.loads((checkpoint / "config.json").read_text())
    replaced = checkpoint / "config.new"
    replaced.write_text(json.dumps(config | {"rms_norm_eps": 1e-6}))
    replaced.rename(checkpoint / "config.json")
    new = get(checkpoint, workspace)
    assert new.key != old.key
    assert json.loads((old.path / "config.json").read_text())["rms_norm_eps"] == 1e-5


def test_an_edit_through_the_other_name_of_a_file_is_repaired(
    checkpoint: Path, workspace: Workspace, tmp_path: Path
) -> None:
    original = tmp_path / "original"
    shutil.copytree(checkpoint, original)
    first = get(checkpoint, workspace)
    # In place, so that the artifact's link shows the edit as well; same size.
    with (checkpoint / WEIGHTS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    again = get(original, workspace)
    assert again.key == first.key
    assert (again.path / WEIGHTS).read_bytes() == (original / WEIGHTS).read_bytes()
    assert workspace.verify(again) == []


def test_a_file_that_changes_while_it_is_read_is_refused(
    checkpoint: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = digests.DigestCache.sha256

    def then_edit(self: digests.DigestCache, *args: object) -> dict[str, str]:
        found = original(self, *args)  # type: ignore[arg-type]
        with (checkpoint / WEIGHTS).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(os.urandom(1))
        # The clock of file times is coarse: an edit right after the last one can look like it.
        later = (checkpoint / WEIGHTS).stat().st_mtime_ns + 1_000_000_000
        os.utime(checkpoint / WEIGHTS, ns=(later, later))
        return found

    monkeypatch.setattr(digests.DigestCache, "sha256", then_edit)
    with pytest.raises(EnvironmentError_, match="changed while it was read"):
        get(checkpoint, workspace)
    assert workspace.list() == []


def test_a_digest_on_record_must_hold(checkpoint: Path, workspace: Workspace) -> None:
    (checkpoint / "SHA256SUMS").write_text(f"{'0' * 64}  {WEIGHTS}\n")
    with pytest.raises(ValidationFailed, match="not what it was"):
        get(checkpoint, workspace)


def test_an_unsound_directory_leaves_no_artifact(checkpoint: Path, workspace: Workspace) -> None:
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(SpecError, match="tokenizer"):
        get(checkpoint, workspace)
    assert workspace.list() == []


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("./nowhere", "there is no ./nowhere", "hf://owner/name"),
        ("acme/tiny", "there is no acme/tiny", "write hf://acme/tiny"),
        ("missing.gguf", "there is no missing.gguf", "hf://"),
        ("~nobody-of-this-name/m", "there is no ~nobody-of-this-name/m", "hf://"),
        ("sample:gpt5", "no sample 'gpt5'", "sample:smollm2-135m"),
    ],
)
def test_unknown_sources_say_what_there_is(
    workspace: Workspace, text: str, message: str, hint: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        get(text, workspace)
    assert caught.value.where == "model.source"
    assert hint in (caught.value.hint or "")


class TestPickles:
    @pytest.fixture
    def pickled(self, tmp_path: Path) -> Path:
        import torch
        from safetensors.torch import load_file

        path = write_checkpoint(tmp_path / "pickled")
        torch.save(load_file(path / WEIGHTS), path / "pytorch_model.bin")
        (path / WEIGHTS).rename(tmp_path / "expected.safetensors")
        return path

    def test_allowed_by_name_they_become_safetensors(
        self, pickled: Path, workspace: Workspace, tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file

        artifact = get(pickled, workspace, ("pytorch_model.bin",))
        found, expected = (
            load_file(artifact.path / WEIGHTS),
            load_file(tmp_path / "expected.safetensors"),
        )
        assert found.keys() == expected.keys()
        assert all(found[name].equal(expected[name]) for name in expected)
        assert not (artifact.path / "pytorch_model.bin").exists()
        assert get(pickled, workspace, ("pytorch_model.bin",)).reused

    def test_the_format_of_before_2020_is_read_too(
        self, pickled: Path, workspace: Workspace, tmp_path: Path
    ) -> None:
        import torch
        from safetensors.torch import load_file

        expected = load_file(tmp_path / "expected.safetensors")
        torch.save(expected, pickled / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        found = load_file(get(pickled, workspace, ("pytorch_model.bin",)).path / WEIGHTS)
        assert found.keys() == expected.keys()
        assert all(found[name].equal(expected[name]) for name in expected)

    def test_a_pickle_that_runs_code_is_refused_even_when_allowed(
        self, pickled: Path, workspace: Workspace, tmp_path: Path
    ) -> None:
        import torch

        class Payload:
            def __reduce__(self) -> object:
                return (Path.touch, (tmp_path / "ran",))

        torch.save({"weight": Payload()}, pickled / "pytorch_model.bin")
        with pytest.raises(SpecError, match="does not load as plain weights"):
            get(pickled, workspace, ("pytorch_model.bin",))
        assert not (tmp_path / "ran").exists()
