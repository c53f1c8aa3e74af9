"""The live view: a screen of its own, keys without Enter, and the terminal as it was afterwards."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable
from datetime import datetime
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from toolkit.cli.top_tables import render
from toolkit.gateway.watch import Reading, between

_QUIT = b"qQ"


def watch(look: Callable[[], Reading], interval: float) -> None:
    """Show the window since the look before, every ``interval`` seconds, until q is pressed.

    Args:
        look: Reads everything once; called in a thread of its own.
        interval: Seconds from one look to the next.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        ToolkitError: what ``look`` raised.
    """
    console = Console(highlight=False)
    before: Reading | None = None
    with (
        _Keys() as keys,
        _Looking(look, interval) as looking,
        Live(Text("reading ..."), console=console, screen=True, auto_refresh=False) as live,
    ):
        live.refresh()
        while True:
            ready, _, _ = select.select([looking.bell, *keys.open], [], [])
            if keys.quits(ready):
                return
            after = looking.newest() if looking.bell in ready else None
            if after is not None:
                view = between(before, after)
                live.update(_Frame(_title(view.window_s), render(view)), refresh=True)
                before = after


def _title(window_s: float | None) -> Text:
    window = "" if window_s is None else f"  the last {window_s:.1f} s"
    now = datetime.now().astimezone()
    return Text(f"toolkit top  {now:%H:%M:%S}{window}  q quits", style="bold")


class _Frame:
    """A title, and as much of the content as the screen is high; says what is left out."""

    def __init__(self, title: RenderableType, content: RenderableType) -> None:
        self._title = title
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = options.update(height=None)
        yield self._title
        lines = console.render_lines(self._content, whole, pad=False)
        room = (options.height or console.height) - 1
        hidden = len(lines) - (room - 1) if len(lines) > room else 0
        for line in lines[: len(lines) - hidden]:
            yield from line
            yield Segment.line()
        if hidden:
            yield Text(f"{hidden} more lines: make the terminal higher", style="dim", end="")


class _Looking:
    """A thread that looks again and again, and rings ``bell`` (a descriptor) after each time.

    The screen must answer keys while a server lets us wait.
    """

    def __init__(self, look: Callable[[], Reading], interval: float) -> None:
        self._look = look
        self._interval = interval
        self._found: deque[Reading | Exception] = deque()
        self._stop = threading.Event()
        self.bell, self._ringer = os.pipe()
        os.set_blocking(self._ringer, False)

    def __enter__(self) -> _Looking:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The pipe stays open: the thread may still be about to ring, and the process ends soon.
        self._stop.set()

    def newest(self) -> Reading | None:
        """The last reading since it was asked before.

        Raises:
            Exception: whatever stopped the thread.
        """
        os.read(self.bell, 4096)
        found = None
        while self._found:
            found = self._found.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._found.append(self._look())
            except Exception as error:
                self._found.append(error)
                self._stop.set()
            os.write(self._ringer, b".")
            self._stop.wait(max(0.05, self._interval - (time.monotonic() - started)))


class _Keys:
    """Single keys of standard input, if it is a terminal; Ctrl-C stays an interrupt."""

    def __init__(self) -> None:
        self.open = [sys.stdin.fileno()] if sys.stdin and sys.stdin.isatty() else []

    def __enter__(self) -> _Keys:
        for descriptor in self.open:
            self._before = termios.tcgetattr(descriptor)
            tty.setcbreak(descriptor)
            # Suspended, we would leave the shell a terminal that neither echoes nor scrolls.
            changed = termios.tcgetattr(descriptor)
            changed[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self.open:
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, self._before)

    def quits(self, ready: list[int]) -> bool:
        """Whether q is among what was typed, or the terminal is gone."""
        for descriptor in self.open:
            if descriptor in ready:
                typed = os.read(descriptor, 1024)
                return not typed or any(key in _QUIT for key in typed)
        return False
