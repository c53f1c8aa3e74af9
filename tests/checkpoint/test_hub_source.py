"""Checkpoints from the hub, by the real client library against a local server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import TinyGguf
from hub_double import HubDouble
from tiny_checkpoints import write_checkpoint

from toolkit.checkpoint import fetch, verify
from toolkit.errors import EnvironmentError_, SpecError, ToolkitError, ValidationFailed
from toolkit.progress import Silent
from toolkit.spec.models import ModelSource
from toolkit.workspace import Artifact, Workspace

COMMIT = "c" * 40
SHARD = "model-00001-of-00002.safetensors"

Fetch = Callable[..., Artifact]


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def get(workspace: Workspace) -> Fetch:
    def get(text: str, *, offline: bool = False, allow: tuple[str, ...] = ()) -> Artifact:
        source = ModelSource(source=text, allow_pickle=allow)
        return fetch(source, workspace, progress=Silent(), offline=offline)

    return get


@pytest.fixture
def model(tmp_path: Path, hub: HubDouble) -> Path:
    directory = write_checkpoint(tmp_path / "origin", shards=2, hidden_size=64)
    (directory / "pytorch_model.bin").write_bytes(b"a pickle beside the safetensors")
    (directory / "consolidated.safetensors").write_bytes(b"the maker's own layout")
    (directory / "README.md").write_text("# Tiny")
    hub.add("acme/tiny", directory)
    return directory


def test_it_takes_the_checkpoint_and_nothing_else(get: Fetch, model: Path) -> None:
    artifact = get("hf://acme/tiny")
    names = {path.name for path in artifact.path.iterdir()} - {"manifest.json"}
    assert names == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        SHARD,
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    }
    for name in names:
        assert (artifact.path / name).read_bytes() == (model / name).read_bytes()


@pytest.mark.usefixtures("model")
def test_it_pins_the_commit_and_says_where_from(get: Fetch) -> None:
    artifact = get("hf://acme/tiny@main")
    assert artifact.manifest.inputs["commit"] == COMMIT
    assert artifact.manifest.notes == {
        "source": "hf://acme/tiny@main",
        "repository": "acme/tiny",
        "revision": "main",
        "commit": COMMIT,
    }


@pytest.mark.usefixtures("model")
def test_a_branch_that_has_not_moved_is_not_fetched_again(get: Fetch, hub: HubDouble) -> None:
    first = get("hf://acme/tiny")
    hub.requests.clear()
    second = get("hf://acme/tiny")
    assert second.reused
    assert second.path == first.path
    assert [method for method, path, _ in hub.requests if "/resolve/" in path] == []


@pytest.mark.usefixtures("model")
def test_a_pinned_commit_asks_nobody(get: Fetch, hub: HubDouble) -> None:
    get(f"hf://acme/tiny@{COMMIT}")
    hub.requests.clear()
    assert get(f"hf://acme/tiny@{COMMIT}").reused
    assert hub.requests == []


def test_a_branch_that_moved_gives_another_artifact(
    get: Fetch, hub: HubDouble, model: Path
) -> None:
    old = get("hf://acme/tiny")
    write_checkpoint(model, shards=2, hidden_size=64, seed=7)
    hub.add("acme/tiny", model, commit="d" * 40)
    new = get("hf://acme/tiny")
    assert new.key != old.key
    assert (new.path / SHARD).read_bytes() != (old.path / SHARD).read_bytes()


def test_a_dropped_connection_is_resumed_where_it_broke(
    get: Fetch, hub: HubDouble, tmp_path: Path
) -> None:
    # The library writes in chunks of 10 MiB, so a smaller file would begin anew.
    directory = write_checkpoint(tmp_path / "large", hidden_size=64, vocab_size=90_000)
    hub.add("acme/large", directory)
    name, break_at = "model.safetensors", 15_000_000
    assert (directory / name).stat().st_size > 20_000_000
    hub.drop_once_after[name] = break_at
    artifact = get("hf://acme/large")
    assert (artifact.path / name).read_bytes() == (directory / name).read_bytes()
    first, second = hub.downloads(name)
    assert first is None
    assert second is not None
    assert 10_000_000 < int(second.removeprefix("bytes=").split("-")[0]) <= break_at


@pytest.mark.usefixtures("model")
def test_after_a_failed_download_only_the_rest_is_fetched(get: Fetch, hub: HubDouble) -> None:
    whole = hub.repositories["acme/tiny"].files.pop("tokenizer.json")
    hub.repositories["acme/tiny"].files["tokenizer.json"] = b""
    with pytest.raises(ToolkitError):
        get("hf://acme/tiny")
    hub.repositories["acme/tiny"].files["tokenizer.json"] = whole
    hub.repositories["acme/tiny"].commit = "e" * 40
    hub.requests.clear()
    get("hf://acme/tiny")
    assert hub.downloads(SHARD) == []
    assert len(hub.downloads("tokenizer.json")) == 1


@pytest.mark.usefixtures("model")
def test_a_file_damaged_on_the_way_is_fetched_once_more(
    hub: HubDouble, workspace: Workspace
) -> None:
    hub.damage[SHARD] = 1
    progress = Notes()
    artifact = fetch(ModelSource(source="hf://acme/tiny"), workspace, progress=progress)
    assert (artifact.path / SHARD).read_bytes() == hub.repositories["acme/tiny"].files[SHARD]
    assert any(SHARD in said for said in progress.said)


@pytest.mark.parametrize("name", [SHARD, "config.json"])
@pytest.mark.usefixtures("model")
def test_a_file_that_stays_damaged_is_refused_and_not_kept(
    get: Fetch, hub: HubDouble, name: str
) -> None:
    hub.damage[name] = 2
    with pytest.raises(ValidationFailed, match=name):
        get("hf://acme/tiny")
    # Once the line is clean again, nothing of the damaged file is left in the cache.
    artifact = get("hf://acme/tiny")
    assert (artifact.path / name).read_bytes() == hub.repositories["acme/tiny"].files[name]


@pytest.mark.usefixtures("model")
def test_weights_are_linked_out_of_the_hubs_cache(get: Fetch) -> None:
    artifact = get("hf://acme/tiny")
    assert (artifact.path / SHARD).stat().st_nlink == 2


def test_a_gguf_file_of_a_repository_is_converted(
    get: Fetch, hub: HubDouble, tmp_path: Path
) -> None:
    folder = tmp_path / "gguf"
    (folder / "files").mkdir(parents=True)
    TinyGguf().write(folder / "files" / "tiny-q8.gguf")
    TinyGguf(seed=1).write(folder / "other.gguf")
    hub.add("acme/gguf", folder)
    artifact = get("hf://acme/gguf/files/tiny-q8.gguf@main")
    assert verify(artifact.path, deep=True).architecture is not None
    assert artifact.manifest.inputs["commit"] == COMMIT
    assert hub.downloads("other.gguf") == []
    assert get("hf://acme/gguf/files/tiny-q8.gguf@main", offline=True).reused
    assert get("hf://acme/gguf/other.gguf").key != artifact.key


def test_progress_adds_up_to_the_download(
    workspace: Workspace, model: Path, hub: HubDouble
) -> None:
    class Bars(Silent):
        def __init__(self) -> None:
            self.bars: list[list[float]] = []

        def start(self, what: str, total: float | None = None, unit: str = "") -> None:
            self.bars.append([total or 0, 0])

        def advance(self, amount: float = 1) -> None:
            self.bars[-1][1] += amount

    progress = Bars()
    artifact = fetch(ModelSource(source="hf://acme/tiny"), workspace, progress=progress)
    assert progress.bars[0][0] == artifact.manifest.size
    assert all(total == done for total, done in progress.bars)


def test_no_space_is_said_before_anything_is_downloaded(
    get: Fetch, hub: HubDouble, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(
        (model / name).stat().st_size for name in (SHARD, "model-00002-of-00002.safetensors")
    )
    usage = shutil.disk_usage(model)
    short = usage._replace(free=needed + (1 << 30) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: short)
    with pytest.raises(EnvironmentError_, match="free") as caught:
        get("hf://acme/tiny")
    assert "HF_HOME" in (caught.value.hint or "")
    assert hub.downloads(SHARD) == []


class TestErrors:
    @pytest.mark.usefixtures("model")
    def test_gated_says_how_to_log_in(self, get: Fetch, hub: HubDouble) -> None:
        hub.repositories["acme/tiny"].gated = True
        with pytest.raises(EnvironmentError_, match="gated") as caught:
            get("hf://acme/tiny")
        assert "hf auth login" in (caught.value.hint or "")
        assert "https://huggingface.co/acme/tiny" in (caught.value.hint or "")

    @pytest.mark.usefixtures("model")
    def test_gated_with_a_token_asks_for_access_instead(
        self, get: Fetch, hub: HubDouble, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_nobody")
        hub.repositories["acme/tiny"].gated = True
        with pytest.raises(EnvironmentError_, match="has not let this account in") as caught:
            get("hf://acme/tiny")
        assert "hf auth login" not in (caught.value.hint or "")
        assert "hf_nobody" not in str(caught.value)

    def test_an_unknown_repository(self, get: Fetch, hub: HubDouble) -> None:
        with pytest.raises(SpecError, match="no model acme/nothing") as caught:
            get("hf://acme/nothing")
        assert caught.value.where == "hf://acme/nothing@main"

    @pytest.mark.usefixtures("model")
    def test_an_unknown_revision(self, get: Fetch) -> None:
        with pytest.raises(SpecError, match="no revision 'v9'"):
            get("hf://acme/tiny@v9")

    @pytest.mark.parametrize(
        ("status", "message"),
        [(401, "no model|token"), (403, "forbids"), (429, "rate limit"), (500, "answered 500")],
    )
    def test_refusals(self, get: Fetch, hub: HubDouble, status: int, message: str) -> None:
        hub.fail_with = status
        with pytest.raises(ToolkitError, match=message):
            get("hf://acme/tiny")

    def test_no_connection(self, get: Fetch) -> None:
        with pytest.raises(EnvironmentError_, match="no connection to http://127") as caught:
            get("hf://acme/tiny")
        assert "checkpoint pack" in (caught.value.hint or "")

    @pytest.mark.parametrize(
        "text", ["hf://tiny", "hf://", "hf://a/b/c", "hf://a/b@", "hf://../x", "hf://a b/c"]
    )
    def test_what_is_no_reference(self, get: Fetch, text: str) -> None:
        with pytest.raises(SpecError) as caught:
            get(text)
        assert caught.value.where == "model.source"

    def test_pickles_alone_are_refused_by_name(
        self, get: Fetch, hub: HubDouble, tmp_path: Path
    ) -> None:
        old = tmp_path / "old"
        old.mkdir()
        (old / "pytorch_model.bin").write_bytes(b"x")
        (old / "config.json").write_text("{}")
        hub.add("acme/old", old)
        with pytest.raises(SpecError, match=r"no \*\.safetensors") as caught:
            get("hf://acme/old")
        assert "allow_pickle: [pytorch_model.bin]" in (caught.value.hint or "")

    def test_a_gguf_repository_names_its_file(
        self, get: Fetch, hub: HubDouble, tmp_path: Path
    ) -> None:
        only = tmp_path / "only"
        only.mkdir()
        (only / "tiny-q8.gguf").write_bytes(b"GGUF")
        hub.add("acme/gguf", only)
        with pytest.raises(SpecError) as caught:
            get("hf://acme/gguf")
        assert "hf://acme/gguf/tiny-q8.gguf" in (caught.value.hint or "")
        with pytest.raises(SpecError, match=r"no file 'other.gguf'"):
            get("hf://acme/gguf/other.gguf")


class TestOffline:
    @pytest.mark.usefixtures("model")
    def test_the_cache_serves_another_workspace(
        self, get: Fetch, hub: HubDouble, tmp_path: Path
    ) -> None:
        online = get("hf://acme/tiny")
        hub.requests.clear()
        other = Workspace(tmp_path / "other")
        offline = fetch(
            ModelSource(source="hf://acme/tiny"), other, progress=Silent(), offline=True
        )
        assert offline.key == online.key
        assert hub.requests == []

    @pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
    @pytest.mark.usefixtures("model")
    def test_by_environment(
        self, get: Fetch, hub: HubDouble, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        get("hf://acme/tiny")
        hub.requests.clear()
        monkeypatch.setenv(variable, "1")
        assert get("hf://acme/tiny").reused
        assert hub.requests == []

    @pytest.mark.usefixtures("model")
    def test_the_artifact_outlives_the_hubs_cache(self, get: Fetch) -> None:
        online = get("hf://acme/tiny")
        shutil.rmtree(os.environ["HF_HUB_CACHE"])
        assert get("hf://acme/tiny", offline=True).path == online.path

    @pytest.mark.usefixtures("model", "hub")
    def test_absent_says_how_to_carry_it_over(self, get: Fetch) -> None:
        with pytest.raises(EnvironmentError_, match="not completely in the local cache") as caught:
            get("hf://acme/tiny", offline=True)
        assert "checkpoint pack" in (caught.value.hint or "")

    @pytest.mark.usefixtures("model")
    def test_a_cache_that_rotted_is_noticed(self, get: Fetch, tmp_path: Path) -> None:
        get("hf://acme/tiny")
        shard = next((tmp_path / "hub-cache").rglob(SHARD))
        blob = shard.resolve()
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.unlink()
        blob.write_bytes(content)
        with pytest.raises(ValidationFailed, match=SHARD):
            fetch(
                ModelSource(source="hf://acme/tiny"),
                Workspace(tmp_path / "other"),
                progress=Silent(),
                offline=True,
            )


@pytest.mark.usefixtures("model")
def test_the_command_line_does_the_same(hub: HubDouble, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "toolkit", "checkpoint", "fetch", "hf://acme/tiny"]
    command[1:3] = ["-c", "import sys; from toolkit.cli import main; sys.exit(main())"]
    command += ["--workspace", str(tmp_path / "ws"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / SHARD).is_file()
    hub.repositories["acme/tiny"].gated = True
    hub.repositories["acme/tiny"].commit = "f" * 40
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
