"""What a measurement must not count, and what its clients must survive."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest
from deployed_state import deployed
from test_bench_load import PROMPTS, Engine
from test_bench_metrics import record, total, window

from toolkit.bench.endpoint import find_deployed
from toolkit.bench.http1 import HttpConnection
from toolkit.bench.http2 import UNAVAILABLE, GrpcConnection
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.measuring import Options, count_tokens, measure
from toolkit.bench.metrics import Objective
from toolkit.bench.records import Request, RequestRecord
from toolkit.bench.target import authority
from toolkit.bench.triton_grpc import TritonGrpcTarget
from toolkit.bench.triton_http import TritonHttpTarget
from toolkit.bench.vocabulary import Tokens
from toolkit.bench.workload import Material
from toolkit.spec.models import Deployment, ModelSource


def test_warm_up_that_is_interrupted_is_not_taken_for_the_measurement() -> None:
    engine = Engine(seconds=0.01)
    options = Options(stop=Stop(requests=5, warmup_requests=1000))

    async def interrupted() -> object:
        task = asyncio.ensure_future(measure(engine, PROMPTS, ClosedLoop(concurrency=2), options))
        while len(engine.asked) < 12:
            await asyncio.sleep(0.005)
        task.cancel()
        return await task

    assert asyncio.run(interrupted()) is None


def test_goodput_counts_only_what_was_held_against_a_target() -> None:
    judged = record(1.0, [1.1], 1.1, 1, request_class="chat")
    others = [record(1.0, [9.0], 9.0, 1, request_class="batch") for _ in range(3)]
    seen = window(judged, *others, chat=Objective(ttft_ms=500))
    assert total("goodput", seen) == pytest.approx(0.1)
    assert total("good_share", seen) == 1.0


def test_a_class_without_targets_is_no_objective() -> None:
    seen = window(record(1.0, [9.0], 9.0, 1), any=Objective())
    assert total("good_share", seen) is None
    assert total("goodput", seen) is None


def tokenizer_with_beginning(path: Path) -> Tokens:
    """Whole words, and ``<s>`` put before whatever is encoded."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(200)]
    vocabulary = {"<s>": 0, "the": 1, "[UNK]": 2} | {f"▁{w}": 3 + n for n, w in enumerate(words)}
    vocabulary |= {"▁the": len(vocabulary)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    made.save(str(path / "tokenizer.json"))
    return Tokens(path)


def test_an_answer_has_no_beginning_token_of_its_own(tmp_path: Path) -> None:
    vocabulary = tokenizer_with_beginning(tmp_path)
    answer = RequestRecord(Request(1, "waa", 8, 0.0), responses=[1.0], text="waa wab wac", ended=2)
    silent = RequestRecord(Request(2, "waa", 8, 0.0), text="", ended=2)
    assert vocabulary.count("waa wab wac") == 4
    options = Options(material=Material(vocabulary=vocabulary))
    assert count_tokens([answer, silent], options.material) == "tokenizer"
    assert (answer.output_tokens, silent.output_tokens) == (3, 0)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def abort(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True


class Heard:
    """A call's handler."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def on_message(self, message: bytes, when: float) -> None: ...

    def on_end(self, status: int, message: str) -> None:
        self.ends.append(status)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def opened(most: int) -> tuple[GrpcConnection, Wire]:
    connection, wire = GrpcConnection("host:1"), Wire()
    connection.connection_made(wire)
    connection.data_received(frame(4, 0, 0, struct.pack(">HI", 3, most)))
    return connection, wire


@pytest.mark.parametrize("last", [1, 2**31 - 1], ids=["final", "announced"])
def test_calls_that_wait_when_the_server_goes_away_end_at_once(last: int) -> None:
    connection, wire = opened(most=1)
    running, waiting = Heard(), Heard()
    connection.call("/a", b"x", running)
    connection.call("/a", b"y", waiting)
    connection.data_received(frame(7, 0, 0, struct.pack(">II", last, 0)))
    assert (running.ends, waiting.ends) == ([], [UNAVAILABLE])
    before = wire.sent
    connection.data_received(frame(4, 0, 0, struct.pack(">HI", 3, 100)))
    assert wire.sent[len(before) :] == frame(4, 1, 0, b"")  # settings are acknowledged, no more
    assert not wire.closed
    connection.data_received(frame(3, 0, 1, struct.pack(">I", 8)))
    assert running.ends == [UNAVAILABLE]
    assert wire.closed  # nothing is left to wait for


def test_a_reset_stream_is_not_reset_back() -> None:
    connection, wire = opened(most=10)
    heard = Heard()
    connection.call("/a", b"x" * 200_000, heard)  # more than the windows let through
    before = wire.sent
    connection.data_received(frame(3, 0, 1, struct.pack(">I", 8)))  # 7 would have it sent again
    assert heard.ends == [UNAVAILABLE]
    assert wire.sent == before


class Got:
    def __init__(self) -> None:
        self.body, self.ends = b"", []  # type: ignore[var-annotated]

    def on_body(self, data: bytes, when: float) -> None:
        self.body += data

    def on_end(self, status: int, error: str) -> None:
        self.ends.append((status, error))


@pytest.mark.parametrize("head", ["content-length:2", "Content-Length:  2\r\nx-empty:"])
def test_headers_may_have_any_space_before_their_value(head: str) -> None:
    connection, got = HttpConnection("host:1"), Got()
    connection.connection_made(Wire())
    connection.send("GET", "/", b"", got)
    connection.data_received(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\nhi".encode())
    assert (got.body, got.ends) == (b"hi", [(200, "")])


def test_an_address_of_ipv6_is_bracketed_wherever_a_port_follows(tmp_path: Path) -> None:
    deployment = Deployment(name="six", model=ModelSource(source="./m"))
    deployed(tmp_path, "six", host="::1")
    found = find_deployed(deployment, tmp_path)
    assert (found.grpc_url, found.http_url) == ("grpc://[::1]:8001", "http://[::1]:8000")


def test_a_server_is_told_its_address_as_urls_write_it() -> None:
    assert authority("::1", 8001) == "[::1]:8001"
    assert authority("localhost", 8001) == "localhost:8001"
    assert TritonGrpcTarget("::1", 8001, "m").url == "grpc://[::1]:8001"
    assert TritonHttpTarget("::1", 8000, "m").url == "http://[::1]:8000"
