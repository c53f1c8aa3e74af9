"""A load process: what :mod:`toolkit.bench.workers` starts.

It reads commands from its standard input and answers on its standard output:

==================  ==============================================================
``clock``           the reading of its clock
``open``, target    connect; ``opened``
``job``, job        make the prompts, ``ready`` before each common start, ``ended``
                    with a number of requests now and then, ``done`` with the harvest
``begin``, time     start then
``stop``            end the running job early; ``done``
==================  ==============================================================

``failed`` with an exception in place of an answer. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from typing import Any

from toolkit.bench.connections import allow_connections
from toolkit.bench.measuring import Job, run_job
from toolkit.bench.records import RequestRecord, clock
from toolkit.bench.target import Target
from toolkit.bench.worker_messages import packed, read

_TELL_EVERY = 0.5


class _Process:
    """The state of one load process."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._target: Target | None = None
        self._running: asyncio.Task[None] | None = None
        self._start: asyncio.Future[float] | None = None
        self._ended, self._told = 0, 0.0

    async def serve(self, commands: asyncio.StreamReader) -> None:
        """Obey until the input ends."""
        try:
            while True:
                await self._obey(*await read(commands))
        except asyncio.IncompleteReadError:
            pass
        finally:
            if self._running:
                self._running.cancel()
                await asyncio.wait([self._running])
            if self._target:
                await self._target.close()

    async def begin(self) -> float:
        """Wait for the start that all parts have in common (a conductor's)."""
        self._start = asyncio.get_running_loop().create_future()
        self._tell("ready", None)
        when = await self._start
        await asyncio.sleep(max(0.0, when - clock()))
        return when

    def ended(self, record: RequestRecord) -> None:
        """Count a request (a conductor's)."""
        self._ended += 1
        if clock() - self._told >= _TELL_EVERY:
            self._tell_ended()

    async def _obey(self, command: str, *content: Any) -> None:
        if command == "clock":
            self._tell("clock", clock())
        elif command == "open":
            await self._open(content[0])
        elif command == "job":
            self._running = asyncio.create_task(self._run(content[0]))
        elif command == "begin" and self._start and not self._start.done():
            self._start.set_result(content[0])
        elif command == "stop" and self._running:
            # One that has not begun yet would end without a word.
            await asyncio.sleep(0)
            self._running.cancel()

    async def _open(self, target: bytes) -> None:
        try:
            self._target = pickle.loads(target)
            assert self._target
            await self._target.open()
        except Exception as error:
            self._tell("failed", _portable(error))
        else:
            self._tell("opened", None)

    async def _run(self, job: Job) -> None:
        assert self._target
        try:
            harvest = await run_job(self._target, job, self)
        except Exception as error:
            self._tell("failed", _portable(error))
        else:
            self._tell_ended()
            self._tell("done", harvest)

    def _tell_ended(self) -> None:
        self._tell("ended", self._ended)
        self._ended, self._told = 0, clock()

    def _tell(self, kind: str, content: Any) -> None:
        # Blocking: nothing else may run before the parent knows, and it always reads.
        data = memoryview(packed((kind, content)))
        while data:
            data = data[os.write(self._out, data) :]


def _portable(error: Exception) -> Exception:
    """The error itself, if another process can read it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


async def _main(out: int) -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await _Process(out).serve(commands)


def main() -> None:
    """Run until the parent closes the input."""
    allow_connections()
    # What a library prints must not come between the answers.
    out = os.dup(1)
    os.dup2(2, 1)
    asyncio.run(_main(out))
