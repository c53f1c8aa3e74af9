"""Progress on the command line: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

import rich.progress
from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from toolkit.progress import Progress, Silent
from toolkit.spec.units import format_duration, format_size

LINE_EVERY_S = 15.0
"""How often a running operation says where it stands when there is no terminal."""


@contextmanager
def command_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Progress]:
    """The progress of one command, written to stderr; whatever is open is closed at the end."""
    stream = stream or sys.stderr
    if quiet:
        yield Silent()
        return
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        lines = PlainLines(stream)
        with lines.reminding():
            yield lines
        return
    bars = TerminalBars(console)
    try:
        yield bars
    finally:
        bars.close()


@dataclass
class _Running:
    what: str
    total: float | None
    unit: str
    done: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def amount(self) -> str:
        if self.unit in ("B", "bytes"):
            done, total = format_size(self.done), format_size(self.total or 0)
            return f"{done} of {total}" if self.total else done
        of = f"/{self.total:g}" if self.total else ""
        return f"{self.done:g}{of} {self.unit}".rstrip()

    def closing(self, result: str) -> str:
        took = f"in {format_duration(time.monotonic() - self.begun)}"
        return f"{self.what}: {result}, {took}" if result else f"{self.what}: done {took}"


class PlainLines:
    """One line at the start, at the end, and now and then between, each with the time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open: list[_Running] = []

    def start(self, what: str, total: float | None = None, unit: str = "") -> None:
        """Begin an operation inside the current one, if any."""
        self._open.append(_Running(what, total, unit))
        self._line(f"{what} ...")

    def advance(self, amount: float = 1) -> None:
        """Count, and tell when the last line is old."""
        if not self._open:
            return
        self._open[-1].done += amount
        self._remind()

    def finish(self, result: str = "") -> None:
        """End the innermost operation."""
        if self._open:
            self._line(self._open.pop().closing(result))

    def note(self, message: str) -> None:
        """A line of its own."""
        self._line(message)

    @contextmanager
    def reminding(self) -> Iterator[None]:
        """Meanwhile an operation that counts nothing shows now and then that it goes on."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(max(LINE_EVERY_S, 1.0)):
                self._remind()

        watcher = threading.Thread(target=watch, name="progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _remind(self) -> None:
        open_now = self._open[-1:]  # the operation may end meanwhile
        for running in open_now:
            if time.monotonic() - running.told >= LINE_EVERY_S:
                running.told = time.monotonic()
                counted = running.amount() if running.done else ""
                going = f"going on for {format_duration(running.told - running.begun)}"
                self._line(f"{running.what}: {counted or going}")

    def _line(self, text: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self._stream.flush()


class _Amount(ProgressColumn):
    """How much is done, in the operation's own unit."""

    def render(self, task: Task) -> Text:
        running = task.fields["running"]
        return Text(running.amount() if running.total or running.done else "")


class TerminalBars:
    """A bar for each open operation; a line that stays for each that ended."""

    def __init__(self, console: Console) -> None:
        self._bars = rich.progress.Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            _Amount(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._open: list[tuple[TaskID, _Running]] = []

    def start(self, what: str, total: float | None = None, unit: str = "") -> None:
        """Begin an operation inside the current one, if any."""
        self._bars.start()
        running = _Running(what, total, unit)
        self._open.append((self._bars.add_task(what, total=total, running=running), running))

    def advance(self, amount: float = 1) -> None:
        """Move the innermost bar."""
        if self._open:
            task, running = self._open[-1]
            running.done += amount
            self._bars.advance(task, amount)

    def finish(self, result: str = "") -> None:
        """End the innermost operation."""
        if not self._open:
            return
        task, running = self._open.pop()
        self._bars.remove_task(task)
        self._say(f"✓ {running.closing(result)}", "green")
        if not self._open:
            self._bars.stop()

    def note(self, message: str) -> None:
        """A line above the bars."""
        self._say(f"  {message}", "dim")

    def close(self) -> None:
        """Take the bars off the screen, as after an error."""
        for task, _ in self._open:
            self._bars.remove_task(task)
        self._open.clear()
        self._bars.stop()

    def _say(self, text: str, style: str) -> None:
        self._bars.console.print(Text(text, style=style), soft_wrap=True)
