"""Progress: bars on a terminal, plain lines in a log, nothing when quiet."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
from typing import TextIO

import pytest

from toolkit.cli import progress as cli_progress
from toolkit.cli.progress import command_progress
from toolkit.progress import Progress


def work(progress: Progress) -> None:
    progress.start("download", total=2_000_000, unit="B")
    progress.advance(1_000_000)
    progress.note("mirror is slow")
    progress.advance(1_000_000)
    progress.finish("2.0 MB")


def test_plain_lines_have_a_time_and_the_result() -> None:
    stream = io.StringIO()
    with command_progress(stream=stream) as progress:
        work(progress)
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert [line[9:] for line in lines[:2]] == ["download ...", "mirror is slow"]
    assert re.match(r"download: 2\.0 MB, in \d", lines[2][9:])


def test_a_long_operation_tells_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_progress, "LINE_EVERY_S", 0)
    stream = io.StringIO()
    with command_progress(stream=stream) as progress:
        work(progress)
    assert "download: 1.0 MB of 2.0 MB" in stream.getvalue()


def test_operations_nest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_progress, "LINE_EVERY_S", 0)
    stream = io.StringIO()
    with command_progress(stream=stream) as progress:
        progress.start("outer", total=4, unit="layers")
        progress.start("inner")
        progress.finish()
        progress.advance()
        progress.finish("ok")
    lines = [line[9:] for line in stream.getvalue().splitlines()]
    assert lines[3] == "outer: 1/4 layers"
    assert lines[4].startswith("outer: ok")


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    with command_progress(quiet=True, stream=stream) as progress:
        work(progress)
    assert stream.getvalue() == ""


def test_more_finishes_than_starts_do_no_harm() -> None:
    with command_progress(stream=io.StringIO()) as progress:
        progress.advance()
        progress.finish()


def fail_midway(stream: TextIO) -> None:
    with command_progress(stream=stream) as progress:
        work(progress)
        progress.start("compile", total=10)
        progress.advance()
        raise RuntimeError


def test_a_terminal_gets_bars_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:
                return
            if not block:
                return
            seen.append(block)

    reader = threading.Thread(target=drain)
    reader.start()
    with os.fdopen(theirs, "w") as stream, pytest.raises(RuntimeError):
        fail_midway(stream)
    reader.join(10)
    os.close(ours)
    text = b"".join(seen).decode()
    assert "download: 2.0 MB" in text
    assert "mirror is slow" in text
    hidden, shown = text.rfind("\x1b[?25l"), text.rfind("\x1b[?25h")
    assert 0 <= hidden < shown, "the cursor is visible again after an error"


def test_operation_that_counts_nothing_still_shows_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("toolkit.cli.progress.LINE_EVERY_S", 0.01)
    told = threading.Event()

    class Heard(io.StringIO):
        def write(self, text: str) -> int:
            if "search scales: going on for" in text:
                told.set()
            return super().write(text)

    stream = Heard()
    with command_progress(stream=stream) as progress:
        progress.start("search scales")
        assert told.wait(30)
        progress.finish()
    assert "search scales: done" in stream.getvalue()
