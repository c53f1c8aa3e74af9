"""``toolkit artifacts``: list, verify, prune."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from toolkit.cli.app import run
from toolkit.progress import Silent
from toolkit.serving import procfs
from toolkit.serving.state import RunDirectory, RunState, Status, now
from toolkit.workspace import Artifact, Workspace, record_use, users_by_key


def make(workspace: Workspace, number: int) -> Artifact:
    def build(directory: Path) -> None:
        (directory / "data").write_bytes(b"x" * 1000 * number)

    return workspace.produce("engine", {"number": number}, build, progress=Silent())


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path / "ws"))
    return Workspace(tmp_path / "ws")


def test_list_shows_size_and_users(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    used, unused = make(workspace, 1), make(workspace, 2)
    record_use(workspace.root, "chat", [used.key])
    assert run(["artifacts", "list", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[used.key]["used_by"] == ["chat"]
    assert rows[unused.key]["used_by"] == []
    assert rows[unused.key]["size"] == 2000
    assert run(["artifacts", "list"]) == 0
    table = capsys.readouterr().out
    assert used.key[:16] in table
    assert "2.0 KB" in table


def test_a_new_build_of_a_deployment_replaces_what_it_uses(workspace: Workspace) -> None:
    record_use(workspace.root, "chat", ["a", "b"])
    record_use(workspace.root, "other", ["b"])
    record_use(workspace.root, "chat", ["b", "c"])
    assert users_by_key(workspace.root) == {"b": ["chat", "other"], "c": ["chat"]}


def test_verify_exits_5_and_says_how_to_mend(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    intact, damaged = make(workspace, 1), make(workspace, 2)
    assert run(["artifacts", "verify", "-q"]) == 0
    (damaged.path / "data").write_bytes(b"y" * 2000)
    capsys.readouterr()
    assert run(["artifacts", "verify", "-q", "--json"]) == 5
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found[str(intact.path)] == []
    assert "data was changed" in found[str(damaged.path)][0]
    assert json.loads(err)["error"]["details"] == [f"rm -r {damaged.path}"]
    assert run(["artifacts", "verify", "-q", intact.key[:8]]) == 0


def test_an_artifact_without_a_manifest_is_damaged_and_pruned(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = make(workspace, 1)
    (torn.path / "manifest.json").unlink()
    assert run(["artifacts", "verify", "-q", "--json"]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out) == {str(torn.path): ["manifest.json is missing or unreadable"]}
    assert json.loads(err)["error"]["details"] == [f"rm -r {torn.path}"]
    assert run(["artifacts", "verify", "-q"]) == 5
    assert run(["artifacts", "verify", "-q", torn.key[:8]]) == 5
    assert run(["artifacts", "prune"]) == 0
    assert not torn.path.exists()
    assert run(["artifacts", "verify", "-q"]) == 0


@pytest.mark.parametrize(("status", "kept"), [("ready", True), ("stopped", False)])
def test_prune_keeps_what_a_running_server_reads(
    workspace: Workspace, status: Status, kept: bool
) -> None:
    served, unused = make(workspace, 1), make(workspace, 2)
    directory = RunDirectory(workspace.root, "chat")
    directory.create()
    started = procfs.start_time(os.getpid())
    assert started is not None
    directory.write(
        RunState(
            name="chat",
            status=status,
            machine=socket.gethostname(),
            supervisor_pid=os.getpid(),
            supervisor_start=started,
            repository=str(served.path / "repository"),
            repository_digest=served.key,
            plan_fingerprint="",
            launched_at=now(),
        )
    )
    assert run(["artifacts", "prune", "--all"]) == 0
    assert served.path.exists() is kept
    assert not unused.path.exists()


def test_verify_of_an_unknown_key_exits_2(workspace: Workspace) -> None:
    make(workspace, 1)
    assert run(["artifacts", "verify", "zzz"]) == 2


def test_prune_keeps_what_deployments_use(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    used, unused = make(workspace, 1), make(workspace, 2)
    record_use(workspace.root, "chat", [used.key])
    assert run(["artifacts", "prune", "--dry-run"]) == 0
    assert "would remove 2.0 KB" in capsys.readouterr().out
    assert unused.path.exists()
    assert run(["artifacts", "prune", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == [str(unused.path)]
    assert used.path.exists()
    assert not unused.path.exists()
    assert run(["artifacts", "prune", "--all"]) == 0
    assert not used.path.exists()
