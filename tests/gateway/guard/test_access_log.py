"""The access log: one line a request whatever the client writes, and never in the answer's way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from toolkit.gateway.guard.access_log import AccessLog


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(write: Any, path: str = "/v1/models") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "path": path, "method": "GET", "client": ("10.0.0.7", 5)}
    asyncio.run(AccessLog(app, write)(scope, receive, send))
    return sent


@pytest.mark.parametrize("path", ['/a\n{"status": 200}', "/\r\x1b[2J", "/ü\u2028", '/"}'])
def test_a_path_cannot_write_lines_of_its_own(path: str) -> None:
    lines: list[bytes] = []
    ask(lines.append, path)
    (line,) = lines
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    assert json.loads(line)["path"] == path
    assert json.loads(line)["status"] == 204


@pytest.mark.parametrize("error", [BrokenPipeError, BlockingIOError])
def test_a_log_that_nobody_reads_breaks_no_answer(error: type[OSError]) -> None:
    def gone(line: bytes) -> None:
        raise error

    assert [each["type"] for each in ask(gone)] == ["http.response.start", "http.response.body"]
