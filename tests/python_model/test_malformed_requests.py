"""Malformed requests on a real Triton: each is refused by the field's name, none does harm."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_double import Triton
from triton_calls import ask

pytestmark = pytest.mark.e2e
GOOD: dict[str, Any] = {"text_input": "the quick brown fox", "max_tokens": 8}
NAN, INF = float("nan"), float("inf")

MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("text_input", {"text_input": ""}),
    ("text_input", {"text_input": "word " * 600}),
    ("text_input", {"text_input": "x" * 1_000_000}),
    ("text_input", {"text_input": b"caf\xe9"}),
    ("text_input", {"text_input": b"\xf0\x9f\x8e"}),
    ("text_input", {"text_input": ["one", "two"]}),
    ("text_input", {"text_input": np.array([[5]], dtype=np.int32)}),
    ("text_input", {"text_input": np.array(["flat"], dtype=object)}),
    ("text_input", {"text_input": None}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": np.array([[8.0]], dtype=np.float32)}),
    ("max_tokens", {"max_tokens": [1, 2]}),
    ("max_tokens", {"max_tokens": np.array([["8"]], dtype=object)}),
    ("min_tokens", {"min_tokens": -3}),
    ("temperature", {"temperature": -1.0}),
    ("temperature", {"temperature": NAN}),
    ("temperature", {"temperature": INF}),
    ("temperature", {"temperature": np.array([[1]], dtype=np.int32)}),
    ("top_p", {"top_p": 1.01}),
    ("top_p", {"top_p": -0.1}),
    ("top_p", {"top_p": NAN}),
    ("top_k", {"top_k": -1}),
    ("repetition_penalty", {"repetition_penalty": 0.0}),
    ("repetition_penalty", {"repetition_penalty": -INF}),
    ("presence_penalty", {"presence_penalty": NAN}),
    ("frequency_penalty", {"frequency_penalty": INF}),
    ("stop_words", {"stop_words": ["w"] * 1000}),
    ("stop_words", {"stop_words": "s" * 1_000_000}),
    ("stop_words", {"stop_words": [b"fine", b"\xff\xff"]}),
    ("stop_words", {"stop_words": np.array([[1]], dtype=np.int32)}),
    ("bad_words", {"bad_words": ["w"] * 65}),
    ("bad_words", {"bad_words": b"\x80"}),
    ("beam_width", {"beam_width": 4}),
    ("num_return_sequences", {"num_return_sequences": 2}),
    ("end_id", {"end_id": 10**6}),
    ("seed", {"seed": np.array([[-1]], dtype=np.int32)}),
    ("deadline_ms", {"deadline_ms": -5}),
    ("stream", {"stream": np.array([[1]], dtype=np.int32)}),
    ("lora_task_id", {"lora_task_id": np.array([[1]], dtype=np.uint64)}),
    ("no_such_field", {"no_such_field": True}),
]


def resident(triton: Triton) -> tuple[int, int]:
    """MiB that the server and its model process hold."""
    children = Path(f"/proc/{triton.process.pid}/task/{triton.process.pid}/children").read_text()
    return _resident(triton.process.pid), sum(map(_resident, map(int, children.split())))


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def malformed(position: int) -> tuple[str, str | None]:
    field, change = MALFORMED[position % len(MALFORMED)]
    given = {name: value for name, value in (GOOD | change).items() if value is not None}
    return field, ask(triton_url[0], **given).error


triton_url: list[str] = []


def test_200_malformed_requests_are_refused_by_name_and_leave_no_trace(triton: Triton) -> None:
    triton_url[:] = [triton.grpc]
    before = ask(triton.grpc, **GOOD)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(malformed, range(205)))  # buffers grow to the largest request once
        server, model = resident(triton)
        answers = list(pool.map(malformed, range(205)))
    unnamed = [(field, error) for field, error in answers if field not in (error or "")]
    assert not unnamed
    after = ask(triton.grpc, **GOOD)
    assert after.error is None
    assert after.text == before.text
    server_after, model_after = resident(triton)
    assert model_after - model <= 2
    # gRPC keeps arenas for as many connections as were ever open at once: seen to level off
    # 11 MiB above the first round, after five rounds.
    assert server_after - server <= 24
