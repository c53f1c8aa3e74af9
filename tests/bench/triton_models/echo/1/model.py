"""Counts instead of generating, at the pace of a ticking "engine", with truthful usage.

One thread ticks; at each tick every running request gets one response, as an in-flight
batching engine would send them. Words stand for tokens. A prompt's leading words that an
earlier prompt or answer began with count as cached. A prompt beginning ``fail`` ends in an
error after two responses, one beginning ``refuse`` at once, ``silence`` never answers.

BENCH_ECHO_TICK_MS sets the tick (default 1), BENCH_ECHO_WORDS the words of one response.
"""

import os
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


@dataclass
class Running:
    """One request between arrival and its final response."""

    sender: object
    prompt: list
    max_tokens: int
    stream: bool
    cached: int
    arrived: float
    sent: list = field(default_factory=list)
    first: float = 0.0


class TritonPythonModel:
    """The python backend's entry point."""

    def initialize(self, args):
        self.tick = float(os.environ.get("BENCH_ECHO_TICK_MS", "1")) / 1000
        self.words = int(os.environ.get("BENCH_ECHO_WORDS", "1"))
        self.lock = threading.Lock()
        self.running = []
        self.seen = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def execute(self, requests):
        for request in requests:
            prompt = _text(request, "text_input").split()
            sender = request.get_response_sender()
            if prompt[:1] == ["refuse"]:
                error = pb_utils.TritonError(
                    "text_input: refused", pb_utils.TritonError.INVALID_ARG
                )
                sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)
                continue
            with self.lock:
                self.running.append(
                    Running(
                        sender,
                        prompt,
                        int(_scalar(request, "max_tokens", 16)),
                        bool(_scalar(request, "stream", False)),
                        max((_common(prompt, old) for old in self.seen), default=0),
                        time.monotonic(),
                    )
                )

    def finalize(self):
        self.stopping.set()
        self.thread.join()

    def _loop(self):
        due = time.monotonic()
        while not self.stopping.is_set():
            due = max(due + self.tick, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            with self.lock:
                batch, self.running = self.running, []
            still = [one for one in batch if not self._step(one)]
            with self.lock:
                self.running = still + self.running

    def _step(self, one):
        """Advance ``one`` by a tick; true when it has ended."""
        if one.sender.is_cancelled():
            one.sender.send(flags=FINAL)
            return True
        if one.prompt[:1] == ["silence"]:
            return False
        if one.prompt[:1] == ["fail"] and len(one.sent) >= 2:
            error = pb_utils.TritonError("engine: broke on purpose", pb_utils.TritonError.INTERNAL)
            one.sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)
            return True
        one.first = one.first or time.monotonic()
        take = min(self.words, one.max_tokens - len(one.sent))
        new = [f"w{len(one.prompt)}.{len(one.sent) + i}" for i in range(take)]
        one.sent += new
        if len(one.sent) >= one.max_tokens:
            self._finish(one, new)
            return True
        if one.stream:
            one.sender.send(pb_utils.InferenceResponse([_bytes("text_output", _join(new))]))
        return False

    def _finish(self, one, new):
        self.seen.append(one.prompt + one.sent)
        outputs = [
            _bytes("text_output", _join(new if one.stream else one.sent)),
            _bytes("finish_reason", "length"),
            _int("num_input_tokens", len(one.prompt)),
            _int("num_output_tokens", len(one.sent)),
            _int("num_cached_tokens", one.cached),
            *_times(one),
            _int("total_draft_tokens", 2 * len(one.sent)),
            _int("total_accepted_draft_tokens", len(one.sent)),
        ]
        one.sender.send(pb_utils.InferenceResponse(outputs), flags=FINAL)


def _join(words):
    return "".join(f" {word}" for word in words)


def _common(a, b):
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count


def _text(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0].decode()


def _scalar(request, name, default):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else tensor.as_numpy().reshape(-1)[0]


def _bytes(name, text):
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))


def _int(name, value):
    return pb_utils.Tensor(name, np.array([value], dtype=np.int32))


def _times(one):
    for name, seconds in (
        ("arrival_time_ns", one.arrived),
        ("first_scheduled_time_ns", one.arrived),
        ("first_token_time_ns", one.first),
    ):
        yield pb_utils.Tensor(name, np.array([round(seconds * 1e9)], dtype=np.int64))
