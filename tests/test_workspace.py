"""The workspace keeps its promises when builders die, meet or are interrupted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from toolkit.errors import BuildError, EnvironmentError_, ValidationFailed
from toolkit.progress import Silent
from toolkit.workspace import (
    Artifact,
    Manifest,
    Workspace,
    default_root,
    record_use,
    user_cache_dir,
    users_by_key,
)
from toolkit.workspace import lock as locks

INPUTS = {"format": "fp8", "upstream": ["a", "b"]}


class Notes(Silent):
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def note(self, message: str) -> None:
        self.messages.append(message)


def fill(directory: Path) -> None:
    (directory / "sub").mkdir(exist_ok=True)
    (directory / "weights.bin").write_bytes(bytes(range(256)) * 1000)
    (directory / "sub" / "config.json").write_text("{}")


def produce(workspace: Workspace, **changes: object) -> Artifact:
    return workspace.produce("thing", {**INPUTS, **changes}, fill, progress=Silent())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def test_same_inputs_build_once_and_other_inputs_again(workspace: Workspace) -> None:
    first, second, other = produce(workspace), produce(workspace), produce(workspace, format="int4")
    assert (first.reused, second.reused, other.reused) == (False, True, False)
    assert first.path == second.path != other.path
    assert workspace.digest(first) == first.key == second.key


def test_key_ignores_order_of_inputs(workspace: Workspace) -> None:
    turned = dict(reversed(INPUTS.items()))
    assert workspace.produce("thing", turned, fill, progress=Silent()).key == produce(workspace).key


def test_inputs_that_are_not_json_are_refused(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="JSON"):
        produce(workspace, path=Path("x"))
    with pytest.raises(ValueError, match="JSON"):
        produce(workspace, number=float("nan"))


def test_manifest_tells_what_is_there(workspace: Workspace) -> None:
    artifact = produce(workspace)
    on_disk = Manifest.model_validate_json((artifact.path / "manifest.json").read_text())
    assert on_disk == artifact.manifest
    assert on_disk.inputs == INPUTS
    assert set(on_disk.files) == {"weights.bin", "sub/config.json"}
    assert on_disk.size == 256_002
    assert on_disk.peak_memory_bytes > 1_000_000
    assert workspace.verify(artifact) == []


def test_manifest_is_deterministic_apart_from_times(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        manifest = json.loads(
            (produce(Workspace(tmp_path / name)).path / "manifest.json").read_text()
        )
        for varying in ("created", "duration_s", "peak_memory_bytes"):
            assert manifest.pop(varying)
        texts.append(json.dumps(manifest))
    assert texts[0] == texts[1]


def test_notes_move_into_the_manifest(workspace: Workspace) -> None:
    def build(directory: Path) -> None:
        fill(directory)
        (directory / "notes.json").write_text('{"perplexity": 24.2}')

    artifact = workspace.produce("thing", INPUTS, build, progress=Silent())
    assert artifact.manifest.notes == {"perplexity": 24.2}
    assert not (artifact.path / "notes.json").exists()
    assert workspace.verify(artifact) == []


def test_notes_that_are_not_json_fail_the_build(workspace: Workspace) -> None:
    def build(directory: Path) -> None:
        (directory / "notes.json").write_text("{")

    with pytest.raises(BuildError, match=r"notes\.json"):
        workspace.produce("thing", INPUTS, build, progress=Silent())
    assert workspace.list() == []


def test_a_changed_file_is_found_by_verify_only(workspace: Workspace) -> None:
    artifact = produce(workspace)
    weights = artifact.path / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[12_345] ^= 1
    weights.write_bytes(content)
    (artifact.path / "stray").write_text("")
    # Finding it again looks at sizes only: it must stay a matter of milliseconds.
    assert produce(workspace).reused
    problems = workspace.verify(artifact)
    assert [line.split()[0] for line in problems] == ["stray", "weights.bin"]


def test_a_changed_manifest_is_found_by_verify(workspace: Workspace) -> None:
    artifact = produce(workspace)
    manifest = artifact.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"fp8"', '"fp4"'))
    assert workspace.verify(artifact) == ["manifest.json does not match its own key"]
    manifest.unlink()
    assert workspace.verify(artifact) == ["manifest.json is missing or unreadable"]


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_truncated_or_missing_file_is_built_again(workspace: Workspace, damage: str) -> None:
    weights = produce(workspace).path / "weights.bin"
    os.truncate(weights, 10) if damage == "truncate" else weights.unlink()
    progress = Notes()
    again = workspace.produce("thing", INPUTS, fill, progress=progress)
    assert not again.reused
    assert "damaged" in progress.messages[0]
    assert workspace.verify(again) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("resume", [False, True])
def test_failed_build_publishes_nothing_and_keeps_its_part_only_to_resume(
    workspace: Workspace, error: type[BaseException], resume: bool
) -> None:
    seen: list[bool] = []

    def build(directory: Path) -> None:
        seen.append((directory / "half").exists())
        (directory / "half").write_text("x")
        if len(seen) == 1:
            raise error

    with pytest.raises(error):
        workspace.produce("thing", INPUTS, build, progress=Silent(), resume=resume)
    assert workspace.list() == []
    assert bool(list(workspace.root.glob("thing/.*.partial"))) is resume
    workspace.produce("thing", INPUTS, build, progress=Silent(), resume=resume)
    assert seen == [False, resume]


def test_full_disk_is_an_environment_error(workspace: Workspace) -> None:
    def build(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(EnvironmentError_, match="disk is full"):
        workspace.produce("thing", INPUTS, build, progress=Silent())


def test_a_disk_too_full_for_a_lock_is_an_environment_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(locks, "_take", full)
    with pytest.raises(EnvironmentError_, match="disk is full"):
        produce(workspace)


def test_peak_memory_is_that_of_the_stage(workspace: Workspace) -> None:
    def hungry(_: Path) -> None:
        block = bytearray(300_000_000)
        block[::4096] = b"x" * len(block[::4096])
        time.sleep(1)

    def child(_: Path) -> None:
        hog = "import time; b = bytearray(300_000_000); b[::4096] = b'x' * 73243; time.sleep(1)"
        subprocess.run([sys.executable, "-c", hog], check=True)

    def modest(_: Path) -> None: ...

    peaks = [
        workspace.produce(build.__name__, {}, build, progress=Silent()).manifest.peak_memory_bytes
        for build in (hungry, modest, child)
    ]
    assert peaks[0] > peaks[1] + 200_000_000
    assert peaks[2] > peaks[1] + 200_000_000


def test_an_earlier_peak_does_not_count_where_the_mark_cannot_be_reset(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.workspace.memory._high_water", lambda: 1 << 50)
    built = workspace.produce("thing", INPUTS, fill, progress=Silent())
    assert built.manifest.peak_memory_bytes < 1 << 50


def test_two_threads_build_once(workspace: Workspace) -> None:
    built: list[int] = []

    def build(directory: Path) -> None:
        built.append(1)
        time.sleep(0.5)
        fill(directory)

    progress = Notes()
    results: list[Artifact] = []

    def work() -> None:
        results.append(workspace.produce("thing", INPUTS, build, progress=progress))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert sorted(result.reused for result in results) == [False, True, True, True]
    assert f"process {os.getpid()}" in progress.messages[0]


def _lock_file(workspace: Workspace) -> Path:
    artifact = produce(workspace)
    workspace.remove(artifact)
    return artifact.path.with_name(f".{artifact.path.name}.lock")


def _owner(**changes: object) -> str:
    return json.dumps({**locks.asdict(locks.Owner.this_process()), **changes})


def test_lock_of_a_dead_or_reused_process_number_is_taken(workspace: Workspace) -> None:
    path = _lock_file(workspace)
    gone = subprocess.Popen(["true"])
    gone.wait()
    for text in (_owner(pid=gone.pid), _owner(started="1"), "{ not json", ""):
        path.write_text(text)
        artifact = produce(workspace)
        assert not artifact.reused
        assert not path.exists()
        workspace.remove(artifact)


def test_lock_from_another_host_is_taken_only_when_old(workspace: Workspace) -> None:
    path = _lock_file(workspace)
    path.write_text(_owner(pid=1, host="elsewhere", machine="other-boot/pid:[1]"))
    assert locks.live_owner(path) is not None
    progress = Notes()
    thread = threading.Thread(
        target=lambda: workspace.produce("thing", INPUTS, fill, progress=progress)
    )
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert "process 1 on elsewhere" in progress.messages[0]
    long_ago = time.time() - locks.SILENT_AFTER_S - 1
    os.utime(path, (long_ago, long_ago))
    thread.join(30)
    assert not thread.is_alive()
    assert len(workspace.list()) == 1


def test_owner_who_lost_the_lock_publishes_nothing(workspace: Workspace) -> None:
    def build(directory: Path) -> None:
        fill(directory)
        next(directory.parent.glob(".*.lock")).write_text(_owner(host="thief"))

    with pytest.raises(BuildError, match="took over"):
        workspace.produce("thing", INPUTS, build, progress=Silent())
    assert workspace.list() == []


def _give_up_for_dead(lock: Path) -> None:
    """Make the lock look like that of a machine that fell silent long ago."""
    lock.write_text(_owner(host="elsewhere", machine="other-boot/pid:[1]", token="elsewhere"))
    long_ago = time.time() - locks.SILENT_AFTER_S - 1
    os.utime(lock, (long_ago, long_ago))


@pytest.mark.parametrize("resume", [False, True])
def test_owner_who_lost_the_lock_spoils_nothing_of_the_one_who_took_it(
    workspace: Workspace, resume: bool
) -> None:
    lost, taken = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def sleeper(directory: Path) -> None:
        (directory / "begun").write_text("by the sleeper")
        _give_up_for_dead(next(directory.parent.glob(".*.lock")))
        lost.set()
        assert taken.wait(30)
        (directory / "weights.bin").write_text("of the sleeper")

    def sleep_and_wake() -> None:
        try:
            workspace.produce("thing", INPUTS, sleeper, progress=Silent(), resume=resume)
        except BuildError as error:
            failures.append(error)

    sleeping = threading.Thread(target=sleep_and_wake)
    sleeping.start()
    assert lost.wait(30)
    found: list[bool] = []

    def build(directory: Path) -> None:
        found.append((directory / "begun").exists())
        fill(directory)
        taken.set()
        sleeping.join(30)

    artifact = workspace.produce("thing", INPUTS, build, progress=Silent(), resume=resume)
    assert ["took over" in str(failure) for failure in failures] == [True]
    assert found == [resume]
    assert workspace.verify(artifact) == []
    assert (artifact.path / "weights.bin").stat().st_size == 256_000
    assert not list(workspace.root.glob("thing/.*.partial"))


def test_a_directory_without_a_readable_manifest_is_seen_and_pruned(workspace: Workspace) -> None:
    kept, torn = produce(workspace), produce(workspace, format="int4")
    (torn.path / "manifest.json").write_text("{")
    run = workspace.root / "run" / "0123456789abcdef"  # a deployment may be called so
    run.mkdir(parents=True)
    assert workspace.unreadable() == [torn.path]
    pruned = workspace.prune({kept.key})
    assert pruned.leftovers == (torn.path,)
    assert pruned.bytes > 256_000
    assert not torn.path.exists()
    assert run.exists()
    assert workspace.verify(kept) == []


def test_a_workspace_that_cannot_be_written_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentError_, match="cannot be written") as caught:
        produce(Workspace(tmp_path / "file" / "ws"))
    assert "TOOLKIT_WORKSPACE" in str(caught.value.hint)


def test_a_damaged_record_of_use_is_told_and_nothing_is_pruned_for_it(workspace: Workspace) -> None:
    record_use(workspace.root, "chat", [produce(workspace).key])
    record = workspace.root / "uses" / "chat.json"
    for damage in ("", "[]", '{"keys": 3}'):
        record.write_text(damage)
        with pytest.raises(ValidationFailed, match="damaged") as caught:
            users_by_key(workspace.root)
        assert caught.value.where == str(record)


def test_where_processes_cannot_be_looked_up_a_live_owner_keeps_its_lock(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = _lock_file(workspace)
    monkeypatch.setattr(locks, "_PROCESSES", tmp_path / "hidden")
    gone = subprocess.Popen(["true"])
    gone.wait()
    path.write_text(_owner(pid=gone.pid))
    assert locks.live_owner(path) is None
    path.write_text(_owner())
    assert locks.live_owner(path) is not None
    long_ago = time.time() - locks.SILENT_AFTER_S - 1
    os.utime(path, (long_ago, long_ago))
    assert locks.live_owner(path) is None


def test_prune_keeps_what_it_is_told_and_what_is_being_built(workspace: Workspace) -> None:
    kept, dropped = produce(workspace), produce(workspace, format="int4")
    stale = workspace.root / "thing" / f".{'0' * 16}.partial"
    stale.mkdir()
    (stale / "half").write_bytes(b"x" * 100)
    busy = workspace.root / "thing" / f".{'1' * 16}.partial"
    busy.mkdir()
    busy.with_name(f".{'1' * 16}.lock").write_text(_owner())

    planned = workspace.prune({kept.key}, dry_run=True)
    assert dropped.path.exists()
    done = workspace.prune({kept.key})
    assert planned == done
    assert [artifact.key for artifact in done.artifacts] == [dropped.key]
    assert done.bytes == dropped.manifest.size + 100
    assert [artifact.key for artifact in workspace.list()] == [kept.key]
    assert busy.exists()
    assert not stale.exists()


def test_places_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOOLKIT_WORKSPACE", "TOOLKIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root(tmp_path / "deploy.yaml") == tmp_path / ".toolkit"
    assert user_cache_dir() == tmp_path / "xdg" / "toolkit"
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path / "w"))
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "c"))
    assert default_root(tmp_path / "deploy.yaml") == tmp_path / "w"
    assert user_cache_dir() == tmp_path / "c"
    assert (tmp_path / "c").is_dir()


def test_a_cache_that_cannot_be_made_is_an_environment_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentError_, match="cache") as caught:
        user_cache_dir()
    assert "TOOLKIT_CACHE" in str(caught.value.hint)


BUILDER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from toolkit.progress import Silent
    from toolkit.workspace import Workspace

    def build(directory):
        for index in range(20):
            part = directory / f"part{index}"
            if not part.exists():
                part.write_bytes(bytes([index]) * 50_000)
                time.sleep(0.01)
        (directory / "notes.json").write_text('{"parts": 20}')

    print("begin", flush=True)
    Workspace(Path(sys.argv[1])).produce(
        "thing", {"x": 1}, build, progress=Silent(), resume=sys.argv[2] == "resume")
    """
)


def _start(workspace: Workspace, mode: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(workspace.root), mode],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    return process


@pytest.mark.parametrize("mode", ["resume", "fresh"])
def test_killed_builders_leave_nothing_that_the_next_one_cannot_use(
    workspace: Workspace, mode: str
) -> None:
    dice = random.Random(7)
    for _ in range(6):
        process = _start(workspace, mode)
        time.sleep(dice.uniform(0.0, 0.3))
        process.kill()
        process.wait()
        for artifact in workspace.list():
            assert workspace.verify(artifact) == []
    process = _start(workspace, mode)
    assert process.wait(60) == 0
    (artifact,) = workspace.list()
    assert workspace.verify(artifact) == []
    assert artifact.manifest.notes == {"parts": 20}
    assert len(artifact.manifest.files) == 20
    assert not list(workspace.root.glob("thing/.*.partial"))


def test_interrupted_process_cleans_up(workspace: Workspace) -> None:
    process = _start(workspace, "fresh")
    deadline = time.monotonic() + 10
    while not list(workspace.root.glob("thing/.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    assert not list(workspace.root.glob("thing/.*.partial"))
    assert not list(workspace.root.glob("thing/.*.lock"))
    assert workspace.list() == []


def test_two_processes_build_at_once(workspace: Workspace) -> None:
    processes = [_start(workspace, "fresh") for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    (artifact,) = workspace.list()
    assert workspace.verify(artifact) == []
