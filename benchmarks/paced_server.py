"""A server of OpenAI's streamed completions that does nothing but keep time.

Each stream gets one token every tick, evenly spread over the tick, for as many tokens as it asks;
what is written is made beforehand, so that it costs far less than reading it. Meant to find out
what a client can take. Prints its port, and ends when its input does. ``GET /stats`` tells its
processor seconds and how late it wrote (99th percentile, ms), since the last time it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

SLOTS = 20
MODEL = "paced"
_EVENT = b'data: {"choices":[{"text":"word "}]}\n\n'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


TOKEN = _chunk(_EVENT)


class Pace:
    """Writes to a slot's streams each time its turn comes."""

    def __init__(self, tick: float) -> None:
        self.tick = tick
        self._slots: list[set[Stream]] = [set() for _ in range(SLOTS)]
        self._next = 0
        self._late = [0.0]
        self._cpu = time.process_time()

    def add(self, stream: Stream) -> None:
        """From its slot's next turn on."""
        self._next = (self._next + 1) % SLOTS
        self._slots[self._next].add(stream)

    async def run(self) -> None:
        """Forever."""
        due, slot = time.perf_counter(), 0
        while True:
            due, slot = due + self.tick / SLOTS, (slot + 1) % SLOTS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            streams = self._slots[slot]
            for stream in [one for one in streams if not one.write_token()]:
                streams.discard(stream)
            self._late.append(time.perf_counter() - due)

    def stats(self) -> dict[str, float]:
        """Since the last call."""
        now, late = time.process_time(), sorted(self._late)
        found = {"cpu_s": now - self._cpu, "late_p99_ms": late[int(len(late) * 0.99)] * 1000}
        self._cpu, self._late = now, [0.0]
        return found


class Stream(asyncio.Protocol):
    """One connection: one request after another."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._read = b""
        self._left = self._total = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: disconnected."""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have arrived."""
        self._read += data
        head, separator, body = self._read.partition(b"\r\n\r\n")
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
        if not separator or len(body) < length:
            return
        self._read = body[length:]
        if head.startswith(b"POST"):
            self._total = self._left = int(json.loads(body[:length])["max_tokens"])
            self._transport.write(_HEAD)
            self._pace.add(self)
        elif head.startswith(b"GET /stats"):
            self._answer(self._pace.stats())
        else:
            self._answer({"data": [{"id": MODEL}]})

    def write_token(self) -> bool:
        """Send one; whether there is more to send."""
        if not self._left:
            return False
        self._left -= 1
        if self._left:
            self._transport.write(TOKEN)
            return True
        usage = {"choices": [], "usage": {"completion_tokens": self._total, "prompt_tokens": 1}}
        last = b"data: %s\n\ndata: [DONE]\n\n" % json.dumps(usage).encode()
        self._transport.write(TOKEN + _chunk(last) + b"0\r\n\r\n")
        return False

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )


async def serve(tick: float) -> None:
    """Until the input ends."""
    loop = asyncio.get_running_loop()
    pace = Pace(tick)
    server = await loop.create_server(lambda: Stream(pace), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    pacing = asyncio.create_task(pace.run())
    await loop.run_in_executor(None, sys.stdin.read)
    pacing.cancel()
    server.close()


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tick-ms", type=float, default=20.0)
    asyncio.run(serve(parser.parse_args().tick_ms / 1000))


if __name__ == "__main__":
    main()
