"""Stand-ins for what lies behind the API, and the real server in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import uvicorn

from toolkit.gateway.openai import GatewayProtocol, ServedModel
from toolkit.gateway.openai.vocabulary import Vocabulary
from toolkit.gateway.work import Final, GatewayError, Piece, Usage, Work


class Talker:
    """Answers like an engine: real tokens, drawn from seed and prompt, within every limit.

    What it says means nothing. It keeps max_tokens, min_tokens, stop texts, greedy and seeded
    repeatability, log probabilities, deadlines and a prefix cache.
    """

    def __init__(self, vocabulary: Vocabulary, pause: float = 0.0) -> None:
        self._vocabulary = vocabulary
        self._pause = pause
        special = set(vocabulary.special.values())
        self._words = [
            token
            for token in range(vocabulary.size)
            if token not in special and vocabulary.token_bytes(token).strip().isalpha()
        ]
        self._seen: set[tuple[int, ...]] = set()
        self.running = 0

    async def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
        self.running += 1
        try:
            async for piece in self._pieces(work):
                yield piece
                await asyncio.sleep(self._pause)
        finally:
            self.running -= 1

    async def _pieces(self, work: Work) -> AsyncIterator[Piece]:
        if work.deadline_s is not None and work.deadline_s < 0.005:
            raise GatewayError(429, "cannot be done in time", code="too_late", retry_after_s=1.2)
        sampling, dice = work.sampling, self._dice(work)
        assert sampling.max_tokens is not None
        length, reason = self._length(work, dice)
        cached = len(work.tokens) - 1 if work.tokens in self._seen else 0
        self._seen.add(work.tokens)
        text, count, stopped = "", 0, None
        while count < length and stopped is None:
            token = dice.choice(self._words)
            count += 1
            word = self._vocabulary.token_bytes(token).decode()
            text += word
            for stop in sampling.stop:
                if stop in text:
                    stopped = stop
                    word = word[: max(0, len(word) - (len(text) - text.index(stop)))]
            logs = (-dice.random(),) if sampling.log_probs else ()
            if count < length and stopped is None:
                yield Piece(word, (token,) if logs else (), logs)
        usage = Usage(len(work.tokens), count, cached)
        ids = (token,) if sampling.log_probs else ()
        yield Final(word, ids, logs, "stop" if stopped is not None else reason, stopped, usage)

    def _dice(self, work: Work) -> random.Random:
        sampling = work.sampling
        if sampling.temperature == 0 or sampling.top_k == 1 or sampling.top_p == 0:
            return random.Random(repr(work.tokens))
        if sampling.seed is None:
            return random.Random()
        return random.Random(repr((work.tokens, sampling.seed)))

    @staticmethod
    def _length(work: Work, dice: random.Random) -> tuple[int, Any]:
        sampling = work.sampling
        most = sampling.max_tokens or 1
        wish = max(dice.randint(20, 60), sampling.min_tokens or 0)
        if sampling.ignore_eos or wish >= most:
            return most, "length"
        return wish, "stop"


Script = Callable[[Work], AsyncGenerator[Piece, None]]


class Scripted:
    """Plays what the test wrote, and remembers what it was asked."""

    def __init__(self, script: Script | Sequence[Piece]) -> None:
        self._script = script
        self.asked: list[Work] = []
        self.running = 0
        self.ended = 0

    async def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
        self.asked.append(work)
        self.running += 1
        try:
            if callable(self._script):
                async for piece in self._script(work):
                    yield piece
            else:
                for piece in self._script:
                    yield piece
        finally:
            self.running -= 1
            self.ended += 1


def said(*texts: str, reason: Any = "stop", cached: int = 0) -> list[Piece]:
    """An answer in these pieces, each of one token, and the end after them."""
    pieces: list[Piece] = [Piece(text) for text in texts]
    usage = Usage(0, max(1, len(texts)), cached)
    return [*pieces, Final("", finish_reason=reason, usage=usage)]


def _free_socket() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


def _server(app: Any, **more: Any) -> uvicorn.Server:
    # Without a configuration of its own, what the server logs reaches the tests.
    options: dict[str, Any] = {"http": GatewayProtocol, "log_config": None, "lifespan": "off"}
    return uvicorn.Server(uvicorn.Config(app, **{**options, **more}))


@contextlib.asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[int]:
    """The application under the real server in this event loop: the port."""
    listener = _free_socket()
    server = _server(app, **options)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


@contextlib.contextmanager
def served_in_thread(app: Any, **options: Any) -> Iterator[int]:
    """The application under the real server in a thread: the port."""
    listener = _free_socket()
    server = _server(app, **options)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
    )
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


def model_with(model: ServedModel, **changes: Any) -> ServedModel:
    """A copy of ``model`` with other fields."""
    from dataclasses import replace

    return replace(model, **changes)
