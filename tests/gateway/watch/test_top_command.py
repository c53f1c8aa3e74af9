"""``toolkit top``: one window for scripts, and live on a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exposition import GATEWAY, TRITON, Exposition
from run_states import state, write

from toolkit.cli import app as application
from toolkit.gateway.watch import deployed

ROOT = Path(__file__).parents[3]
RUN = "import sys; from toolkit.cli import main; sys.exit(main())"
# The terminal has to be the process's own for Ctrl-C to reach it.
ON_TERMINAL = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {RUN}"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def growing() -> Callable[[], str]:
    """The recorded gateway, each time with 10 more requests and 300 more tokens."""
    asked = 0

    def text() -> str:
        nonlocal asked
        asked += 1
        more = GATEWAY.replace(
            'outcome="length",request_class="interactive"} 201.0', _OUTCOME % (201 + 10 * asked)
        )
        return more.replace(
            '"completion",model="smollm2",request_class="interactive"} 8349.0',
            _TOKENS % (8349 + 300 * asked),
        )

    return text


_OUTCOME = 'outcome="length",request_class="interactive"} %d'
_TOKENS = '"completion",model="smollm2",request_class="interactive"} %d'


def test_once_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with Exposition(growing()) as gateway, Exposition(lambda: TRITON) as triton:
        metrics = f"127.0.0.1:46709/{triton.port}"
        words = ["top", "--once", "--json", "--interval", "0.2"]
        assert application.run([*words, "--url", gateway.url, "--metrics", metrics]) == 0
        assert (gateway.asked, triton.asked) == (2, 2)
    view = json.loads(capsys.readouterr().out)
    classes = {each["request_class"]: each for each in view["classes"]}
    assert view["window_s"] >= 0.2
    requests = classes["interactive"]["requests_per_s"]
    assert 0 < requests <= 10 / 0.2
    assert classes["interactive"]["completion_tokens_per_s"] == pytest.approx(30 * requests)
    assert classes["batch"]["requests_per_s"] == 0
    assert classes["batch"]["ttft_p95_s"] is None
    (replica,) = view["replicas"]
    assert (replica["up"], replica["slots"], replica["kv_use"]) == (True, 32, 0)


def test_once_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    with Exposition(growing()) as gateway:
        assert application.run(["top", "--interval", "0.2", "--url", gateway.url]) == 0
    text = capsys.readouterr().out
    assert "interactive" in text
    assert "127.0.0.1:46709" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_deployment_of_the_workspace_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    with Exposition(growing()) as gateway, Exposition(lambda: TRITON) as triton:
        ports = {"grpc_port": 46709, "metrics_port": triton.port, "companion_url": gateway.url}
        write(tmp_path, state("smollm2", **ports))
        assert application.run(["top", "smollm2", "--json", "--interval", "0.2"]) == 0
    view = json.loads(capsys.readouterr().out)
    (replica,) = view["replicas"]
    assert (replica["restarts"], replica["outstanding_tokens"]) == (1, 0)


def test_nothing_to_watch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert application.run(["top", "--once", "--workspace", str(tmp_path)]) == 6
    assert "nothing runs here" in capsys.readouterr().err
    assert application.run(["top", "chat", "--once", "--workspace", str(tmp_path)]) == 6
    assert "chat is not deployed" in capsys.readouterr().err
    assert application.run(["top", "--once", "--interval", "0.2", "--url", "127.0.0.1:1"]) == 6
    assert "connection refused" in capsys.readouterr().err
    assert application.run(["top", "chat", "--url", "127.0.0.1:1"]) == 2
    assert deployed.deployed(tmp_path) == ()


class Terminal:
    """A process of ``toolkit top`` on a pseudo-terminal of 80 columns."""

    def __init__(self, *arguments: str) -> None:
        self._ours, self._its = pty.openpty()
        fcntl.ioctl(self._its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self._its)
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, "top", *arguments],
            stdin=self._its,
            stdout=self._its,
            stderr=self._its,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        )
        self.output = ""

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, words: str, seconds: float = 60.0) -> None:
        """Read until ``words`` come after what was read before."""
        start, deadline = len(self.output), time.monotonic() + seconds
        while words not in ESCAPES.sub("", self.output[start:]):
            assert time.monotonic() < deadline, f"no {words!r} in {self.output[start:]!r}"
            self._read(0.1)

    def end(self) -> int:
        """Its exit status, after everything it wrote was read."""
        deadline = time.monotonic() + 60.0
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.returncode

    @property
    def restored(self) -> bool:
        """Whether cursor, screen and settings are as they were."""
        last = {
            code: self.output.rfind(f"\x1b[?{code}") for code in ("25l", "25h", "1049h", "1049l")
        }
        shown = -1 < last["25l"] < last["25h"] and -1 < last["1049h"] < last["1049l"]
        return shown and self.settings == self.before

    @property
    def settings(self) -> list[Any]:
        """The terminal's, as they are now."""
        return termios.tcgetattr(self._its)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._its)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        self.output += os.read(self._ours, 65536).decode(errors="replace")
        return True


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    one = Terminal(*arguments)
    try:
        yield one
    finally:
        one.close()


def test_live_until_q() -> None:
    with Exposition(growing()) as gateway, terminal("--url", gateway.url) as one:
        one.until("interactive")
        one.until("the last 1.")  # a second look: rates
        one.until("refused/s")
        one.press("x")
        one.until("req/s")
        one.press("q")
        assert one.end() == 0
        assert one.restored
    assert "Traceback" not in one.output
    frames = ESCAPES.sub("", one.output.replace("\x1b[H", "\n"))
    lines = frames.replace("\r", "").split("\n")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("key", "sent", "code"),
    [("\x03", None, 130), ("", signal.SIGINT, 130), ("", signal.SIGTERM, 143)],
)
def test_interrupted(key: str, sent: signal.Signals | None, code: int) -> None:
    with Exposition(growing()) as gateway, terminal("--url", gateway.url) as one:
        one.until("interactive")
        if sent is None:
            one.press(key)
        else:
            one.process.send_signal(sent)
        assert one.end() == code
        assert one.restored
    assert "Traceback" not in one.output


def test_a_gateway_that_goes_and_comes_back_is_watched_on() -> None:
    gateway = Exposition(growing())
    port = gateway.port
    with terminal("--url", gateway.url, "--interval", "0.2") as one:
        one.until("interactive")
        gateway.close()
        one.until("connection refused")
        with Exposition(growing(), port=port):
            one.until("interactive")
            one.until("the last 0.")
            one.press("q")
            assert one.end() == 0
        assert one.restored


def test_keys_are_heard_while_a_server_lets_us_wait() -> None:
    def never() -> str:
        time.sleep(600)
        return ""

    with Exposition(never) as gateway, terminal("--url", gateway.url) as one:
        one.until("reading")
        one.press("q")
        assert one.end() == 0
        assert one.restored


def test_suspending_would_leave_a_broken_terminal_so_no_key_does() -> None:
    # Without a shell the kernel would not stop it either: only the settings can tell.
    with Exposition(growing()) as gateway, terminal("--url", gateway.url) as one:
        one.until("interactive")
        assert one.before[6][termios.VSUSP] == b"\x1a"
        assert one.settings[6][termios.VSUSP] == b"\0"
        one.press("Q")
        assert one.end() == 0
        assert one.restored
