"""Tables on narrow and wide terminals and in pipes."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from toolkit.cli.output import counted, print_table

COLUMNS = ("name", "status", "HTTP", "gRPC", "KV cache")
ROW = ("smollm2", "ready", "http://127.0.0.1:8000", "127.0.0.1:8001", "12%")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    return monkeypatch


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_narrow_terminal_gets_whole_cells(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.setenv("COLUMNS", "60")
    print_table("1 deployment", COLUMNS, [ROW], right="KV cache")
    text = shown(capsys)
    assert all(cell in text for cell in ROW)
    assert all(column in text for column in COLUMNS[1:])
    assert max(map(len, text.splitlines())) <= 60


def test_wide_terminal_gets_a_table(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.setenv("COLUMNS", "120")
    print_table("1 deployment", COLUMNS, [ROW])
    lines = shown(capsys).splitlines()
    assert any(all(cell in line for cell in ROW) for line in lines)


def test_one_long_cell_is_folded(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.setenv("COLUMNS", "60")
    print_table("", ("check", "evidence"), [("streaming", "word " * 30)])
    text = shown(capsys)
    assert text.count("word") == 30
    assert max(map(len, text.splitlines())) <= 60


def test_pipe_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    long = "/a/very/long/path" * 20
    print_table(f"1 artifact in {long}", ("what", "where"), [("engine", long)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"1 artifact in {long}"
    assert any("engine" in line and long in line for line in lines)


def test_no_rows_leave_the_title(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("0 deployments", COLUMNS, [])
    assert "0 deployments" in capsys.readouterr().out


def test_counts_have_their_number() -> None:
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
