from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.checkpoint import pack, unpack, verify
from toolkit.errors import EnvironmentError_, SpecError, ToolkitError, ValidationFailed
from toolkit.progress import Silent

RECORD = "packed-checkpoint.json"


@pytest.fixture
def archive(checkpoint: Path, tmp_path: Path) -> Path:
    return pack(checkpoint, tmp_path / "tiny.tar", Silent()).path


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_there_and_back(checkpoint: Path, tmp_path: Path, suffix: str) -> None:
    packed = pack(checkpoint, tmp_path / f"tiny{suffix}", Silent())
    assert packed.sha256 == hashlib.sha256(packed.path.read_bytes()).hexdigest()
    report = unpack(packed.path, tmp_path / "there", Silent())
    assert report.problems == ()
    assert report.digests_checked == packed.files == 5
    for path in checkpoint.iterdir():
        assert (tmp_path / "there" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_the_archive_depends_on_contents_only(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    first = pack(checkpoint, tmp_path / f"a{suffix}", Silent())
    for path in checkpoint.iterdir():
        path.touch()
        path.chmod(0o600)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert pack(checkpoint, tmp_path / f"b{suffix}", Silent()).sha256 == first.sha256


def test_what_was_unpacked_can_be_checked_ever_after(archive: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    unpack(archive, there, Silent())
    assert verify(there).digests_checked == 5
    with (there / "model.safetensors").open("r+b") as file:
        file.seek(-1, io.SEEK_END)
        file.write(b"\x55")
    with pytest.raises(SpecError, match="digest differs"):
        verify(there)


def test_an_unsound_checkpoint_is_not_packed(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "config.json").unlink()
    with pytest.raises(SpecError, match=r"config\.json is missing"):
        pack(checkpoint, tmp_path / "x.tar", Silent())
    assert list(tmp_path.glob("*.tar*")) == []


def test_a_target_that_is_not_empty_is_left_alone(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("x")
    with pytest.raises(SpecError, match="not empty"):
        unpack(archive, tmp_path / "there", Silent())
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]


def test_other_suffixes(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.tar"):
        pack(checkpoint, tmp_path / "x.zip", Silent())


def rewrite(archive: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    with tarfile.open(archive) as tar:
        members = [(info, file.read() if (file := tar.extractfile(info)) else b"") for info in tar]
    change(members)
    with tarfile.open(archive, "w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = "/etc/passwd"
    return info


def record(members: list, **files: dict) -> None:
    info, raw = members[0]
    content = json.loads(raw)
    content["files"] |= files
    members[0] = (info, json.dumps(content).encode())


DIGEST = hashlib.sha256(b"x").hexdigest()
OF_X = {"size": 1, "sha256": DIGEST}


def add(name: str, kind: bytes = tarfile.REGTYPE, *, listed: bool = False):
    def change(members: list) -> None:
        if listed:
            record(members, **{name: OF_X})
        members.append((member(name, kind=kind), b"x" if kind == tarfile.REGTYPE else b""))

    return change


def flip(members: list) -> None:
    info, content = members[3]
    members[3] = (info, content[:-1] + bytes([content[-1] ^ 1]))


def swap_for_link(members: list) -> None:
    link = member(members[3][0].name, kind=tarfile.SYMTYPE)
    members[3] = (link, b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add("../evil.json"), "not what the record lists"),
        (add("../evil.json", listed=True), "which no checkpoint has"),
        (add("/etc/config.json", listed=True), "which no checkpoint has"),
        (add("sub/config.json", listed=True), "which no checkpoint has"),
        (add("run.sh", listed=True), "which no checkpoint has"),
        (add("pytorch_model.bin", listed=True), "which no checkpoint has"),
        (add("LICENSE", tarfile.SYMTYPE, listed=True), "not what the record lists"),
        (add("LICENSE", tarfile.LNKTYPE, listed=True), "not what the record lists"),
        (add("LICENSE", tarfile.FIFOTYPE, listed=True), "not what the record lists"),
        (add("config.json"), "not what the record lists"),
        (flip, "its SHA-256 differs"),
        (swap_for_link, "not what the record lists"),
        (add("a\0.safetensors", listed=True), "which no checkpoint has"),
        (lambda members: members.pop(2), "is missing"),
        (lambda members: record(members, LICENSE={"size": -1, "sha256": DIGEST}),
         "which no checkpoint has"),
    ],
)  # fmt: skip
def test_nothing_in_an_archive_is_trusted(
    archive: Path, tmp_path: Path, change: Callable, message: str
) -> None:
    rewrite(archive, change)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValidationFailed, match=message):
        unpack(archive, tmp_path / "there", Silent())
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "there").exists()


def test_a_truncated_archive(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:8000])
    with pytest.raises(ValidationFailed, match=r"damaged or truncated|cannot be read|differs"):
        unpack(archive, tmp_path / "there", Silent())
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("where", [0.3, 0.6, 0.95])
def test_a_damaged_compressed_archive(checkpoint: Path, tmp_path: Path, where: float) -> None:
    archive = pack(checkpoint, tmp_path / "tiny.tar.gz", Silent()).path
    content = bytearray(archive.read_bytes())
    place = int(len(content) * where)
    content[place : place + 16] = bytes(255 - byte for byte in content[place : place + 16])
    archive.write_bytes(content)
    with pytest.raises(ValidationFailed, match="not as it was packed"):
        unpack(archive, tmp_path / "there", Silent())
    assert not (tmp_path / "there").exists()


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read") as caught:
        unpack(tmp_path, tmp_path / "there", Silent())
    assert caught.value.where == str(tmp_path)


def test_the_folder_where_one_stands_is_a_target_too(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert unpack(archive, Path(), Silent()).problems == ()
    assert (tmp_path / "here" / "config.json").is_file()


def test_a_foreign_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.addfile(member("config.json"), io.BytesIO(b"x"))
    with pytest.raises(SpecError, match="no archive of a checkpoint"):
        unpack(tmp_path / "other.tar", tmp_path / "there", Silent())


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such archive"):
        unpack(tmp_path / "none.tar", tmp_path / "there", Silent())


def test_an_interrupted_pack_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    class Interrupting(Silent):
        def start(self, what: str, total: float | None = None, unit: str = "") -> None:
            self.packing = what.startswith("pack")

        def advance(self, amount: float = 1) -> None:
            if self.packing:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(checkpoint, tmp_path / "x.tar", Interrupting())
    assert [path.name for path in tmp_path.iterdir() if "x.tar" in path.name] == []


def test_zstd_where_python_lacks_it(checkpoint: Path, tmp_path: Path) -> None:
    import sys

    if sys.version_info >= (3, 14):
        assert pack(checkpoint, tmp_path / "x.tar.zst", Silent()).files == 5
        return
    with pytest.raises(EnvironmentError_, match="zstd"):
        pack(checkpoint, tmp_path / "x.tar.zst", Silent())


def test_errors_have_a_place(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError) as caught:
        unpack(tmp_path / "none.tar", tmp_path / "there", Silent())
    assert caught.value.where == str(tmp_path / "none.tar")
