"""What every command shares: exit codes, the form of errors, lazy loading, pipes, interrupts."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from toolkit import __version__
from toolkit.cli import app as application
from toolkit.cli.failure import describe
from toolkit.cli.registry import Command
from toolkit.errors import (
    BuildError,
    EnvironmentError_,
    ServerError,
    SpecError,
    ToolkitError,
    UnsupportedError,
    ValidationFailed,
)

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "modelopt", "openvino", "tritonclient", "numpy", "pydantic")
RUN = "import sys; from toolkit.cli import main; sys.exit(main())"

Run = Callable[..., int]


def shell(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options}
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, env=environment
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the application with one more command, ``probe``, that does what the test says."""

    def go(action: Callable[[], None], *arguments: str) -> int:
        def register(app: typer.Typer) -> None:
            app.command("probe")(probe)

        def probe(json: bool = False) -> None:
            action()

        module = types.ModuleType("toolkit.cli.probe_command")
        module.register = register  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "toolkit.cli.probe_command", module)
        monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
        commands = (Command("probe", "probe_command", "Probe.", "Test"),)
        monkeypatch.setattr(application, "COMMANDS", commands)
        before = signal.getsignal(signal.SIGTERM)
        try:
            return application.run(["probe", *arguments])
        finally:
            signal.signal(signal.SIGTERM, before)

    return go


def fail(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (SpecError, 2),
        (UnsupportedError, 2),
        (EnvironmentError_, 3),
        (BuildError, 4),
        (ValidationFailed, 5),
        (ServerError, 6),
    ],
)
def test_exit_code_comes_from_the_error(
    run: Run, capsys: pytest.CaptureFixture[str], kind: type[ToolkitError], code: int
) -> None:
    error = kind("it broke", where="a.yaml:3:5", hint="mend it", details=["last line"])
    assert run(fail(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.strip() for line in err.splitlines()] == [
        "error: it broke",
        "at: a.yaml:3:5",
        "hint: mend it",
        "| last line",
    ]


def test_long_messages_stay_on_one_line_and_markup_is_text(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "[red]no[/red] " + "word " * 100
    run(fail(SpecError(message)))
    assert capsys.readouterr().err == f"error: {message}\n"


def test_error_as_json_is_one_line_on_stderr(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail(BuildError("it broke", hint="mend it")), "--json") == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"] == {
        "exit_code": 4,
        "kind": "build failed",
        "message": "it broke",
        "where": None,
        "hint": "mend it",
        "details": [],
    }


def test_unexpected_exception_is_called_a_bug_and_its_traceback_is_kept(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(fail(ZeroDivisionError("oops"))) == 1
    err = capsys.readouterr().err
    saved = tmp_path / "cache" / "last-traceback.txt"
    assert "ZeroDivisionError: oops (this is a bug in the toolkit)" in err.splitlines()[0]
    assert str(saved) in err
    assert "Traceback" not in err
    assert "Traceback" in saved.read_text()


def test_a_bug_is_told_where_no_traceback_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "file" / "cache"))
    found = describe(ValueError("odd"), ["build"])
    assert (found.exit_code, found.kind) == (1, "bug")
    assert "--debug build" in str(found.hint)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_what_the_machine_refuses_is_no_bug(
    run: Run, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert run(fail(OSError(number, os.strerror(number), "/w/x"))) == 3
    told = capsys.readouterr().err
    assert "/w/x" in told
    assert "TOOLKIT_WORKSPACE" in told
    assert "TOOLKIT_CACHE" in told
    assert "bug" not in told


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), SpecError("wrong")])
def test_debug_shows_the_traceback(
    run: Run, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    run(fail(error), "--debug")
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupt_exits_130(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail(KeyboardInterrupt())) == 130
    told = capsys.readouterr().err
    assert "interrupted" in told
    assert "continues" not in told  # only what keeps finished work says so


def test_a_command_chooses_its_exit_code(run: Run) -> None:
    assert run(fail(typer.Exit(7))) == 7
    assert run(lambda: None) == 0


@pytest.mark.parametrize(
    "arguments", [["artifacts", "--bogus"], ["artefacts"], ["artifacts", "verify", "--workspace"]]
)
def test_wrong_usage_exits_2_and_names_the_help(arguments: list[str]) -> None:
    done = shell(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "--help" in done.stderr.splitlines()[1]
    assert "Traceback" not in done.stderr


def test_unknown_command_suggests_the_nearest() -> None:
    assert "Did you mean 'artifacts'" in shell("artefacts").stderr


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from toolkit.cli.app import run; code = run(sys.argv[1:]); "
        f"heavy = [name for name in {HEAVY} if name in sys.modules]; "
        "sys.exit(code or ', '.join(heavy) or None)"
    )
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, option],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        assert ("artifacts" if option == "--help" else __version__) in done.stdout


def test_help_lists_every_command_once_and_each_one_loads() -> None:
    text = shell("--help").stdout
    for command in application.COMMANDS:
        assert f" {command.name} " in text
        done = shell(command.name, "--help")
        assert done.returncode == 0, (command.name, done.stderr)
        assert "Usage: toolkit " + command.name in done.stdout


def test_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.wait()
    assert errors == ""


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = shell("artefacts", FORCE_COLOR="1", TERM="xterm")
    plain = shell("artefacts", FORCE_COLOR="1", TERM="xterm", NO_COLOR="1")
    assert "\x1b[1;31m" in coloured.stderr
    assert "31m" not in plain.stderr


def test_sigterm_cleans_up(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib, types, toolkit.cli.app as a\n"
        "a._end_on_sigterm()\n"
        "try:\n    print('ready', flush=True); time.sleep(30)\n"
        f"finally:\n    pathlib.Path({str(tmp_path / 'clean')!r}).touch()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert process.wait(20) == 143
    assert (tmp_path / "clean").exists()


def test_words_of_libraries_do_not_leak() -> None:
    for words in (
        ("init", "--model", "m", "--for", "speed"),
        ("quantize", ".", "out", "--weights", "fp16"),
    ):
        done = shell(*words)
        assert done.returncode == 2
        assert "fp8" in done.stderr or "latency" in done.stderr
        assert "Value error" not in done.stderr
        assert "Input should" not in done.stderr
