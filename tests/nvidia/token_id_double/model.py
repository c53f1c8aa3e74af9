"""NVIDIA's C++ backend as its tensors show it, with the CPU engine behind it; for tests only.

Speaks the contract of the model ``tensorrt_llm``: token ids in, ``output_ids`` [1, beams, n] and
``sequence_length`` [1, beams] out, in a stream the new tokens alone, in one answer with or without
the prompt. End tokens are no part of the output, stop words are. With ``draft_input_ids`` the
answer is the longest part that the engine would have chosen itself, and one token more.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from llm_serving.engine_api import GenerationRequest, Sampling, TokenChunk, Usage  # noqa: E402
from paged_engine import create  # noqa: E402

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_NS = 1_000_000_000


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._parameters = {k: v["string_value"] for k, v in config["parameters"].items()}
        told = json.loads((HERE / "double.json").read_text())
        self._wrong_every = told.get("wrong_every", 0)
        self._ids = itertools.count(1)
        self._open: dict[int, Job] = {}
        self._lock = threading.Lock()
        self._engine = create(told["engine"], HERE / "engine")
        self._engine.start(self._on_chunks)

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._accept(request, Inputs(request), sender)
            except Exception as error:
                sender.send(
                    pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))), flags=FINAL
                )

    def finalize(self) -> None:
        self._engine.close()

    def _accept(self, request: Any, inputs: Inputs, sender: Any) -> None:
        if inputs.flag("stop"):
            with self._lock:
                jobs = [j for j in self._open.values() if j.user_id == request.request_id()]
            for job in jobs:
                self._engine.cancel(job.number)
            sender.send(flags=FINAL)
            return
        refuse_what_the_backend_refuses(inputs, self._parameters)
        prompt = inputs.ids("input_ids")[: inputs.whole("input_lengths")]
        excluded = inputs.flag("exclude_input_in_output", self._parameters.get(
            "exclude_input_in_output") == "true")  # fmt: skip
        number = next(self._ids)
        wanted = frozenset(request.requested_output_names())
        job = Job(number, request.request_id(), sender, inputs, prompt, excluded, wanted)
        with self._lock:
            self._open[number] = job
        self._engine.submit(GenerationRequest(number, tuple(prompt), sampling_of(inputs)))

    def _on_chunks(self, chunks: list[TokenChunk]) -> None:
        for chunk in chunks:
            job = self._open.get(chunk.request_id)
            if job is None:
                continue
            if self._wrong_every:
                chunk.tokens = [
                    t + 1 if (len(job.tokens) + n) % self._wrong_every == 1 else t
                    for n, t in enumerate(chunk.tokens)
                ]
            if job.take(chunk):
                with self._lock:
                    del self._open[job.number]
                if chunk.finish is None:
                    self._engine.cancel(job.number)


class Inputs:
    """The tensors of one request: a batch of one."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def array(self, name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(self._request, name)
        if tensor is None:
            return None
        array = tensor.as_numpy()
        if array.shape[0] != 1:
            raise ValueError(f"{name}: the double takes a batch of one, got {array.shape}")
        return array

    def one(self, name: str) -> Any:
        array = self.array(name)
        if array is None:
            return None
        # [1] because the model's configuration reshapes [1, 1].
        if array.shape != (1,):
            raise ValueError(f"{name}: expected shape [1] after reshape, got {array.shape}")
        return array[0]

    def whole(self, name: str, default: int = 0) -> int:
        value = self.one(name)
        return default if value is None else int(value)

    def real(self, name: str, default: float) -> float:
        value = self.one(name)
        return default if value is None else float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.one(name)
        return default if value is None else bool(value)

    def ids(self, name: str) -> list[int]:
        array = self.array(name)
        return [] if array is None else [int(each) for each in array.reshape(-1)]

    def words(self, name: str) -> list[tuple[int, ...]]:
        array = self.array(name)
        if array is None:
            return []
        if array.ndim != 3 or array.shape[1] != 2:
            raise ValueError(f"{name}: expected [1, 2, n], got {array.shape}")
        flat, ends = array[0].tolist()
        ends = [end for end in ends if end != -1]
        return [tuple(flat[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def refuse_what_the_backend_refuses(inputs: Inputs, parameters: dict[str, str]) -> None:
    if inputs.whole("beam_width", 1) > int(parameters["max_beam_width"]):
        raise ValueError("beam width is larger than max_beam_width")
    for name in ("return_context_logits", "return_generation_logits"):
        if inputs.flag(name):
            raise ValueError(f"{name}: the engine was built without")
    if inputs.array("lora_weights") is not None:
        raise ValueError("the engine was built without LoRA")


def sampling_of(inputs: Inputs) -> Sampling:
    temperature, top_p = inputs.real("temperature", 1.0), inputs.real("runtime_top_p", 0.0)
    top_k = inputs.whole("runtime_top_k")
    greedy = top_k == 1 or (top_k == 0 and top_p == 0)
    end = inputs.whole("end_id", -1)
    drafts = inputs.ids("draft_input_ids")
    wanted = inputs.whole("request_output_len")
    return Sampling(
        max_tokens=min(wanted, len(drafts) + 1) if drafts else wanted,
        min_tokens=inputs.whole("min_tokens"),
        temperature=0.0 if greedy else temperature,
        top_k=top_k,
        top_p=top_p or 1.0,
        repetition_penalty=inputs.real("repetition_penalty", 1.0),
        presence_penalty=inputs.real("presence_penalty", 0.0),
        frequency_penalty=inputs.real("frequency_penalty", 0.0),
        # NVIDIA's default seed is 0, not a new one for each request.
        seed=int(inputs.one("seed") or 0),
        stop_token_ids=() if end < 0 else (end,),
        bad_words=tuple(inputs.words("bad_words_list")),
        log_probs=inputs.flag("return_log_probs"),
    )


class Job:
    """One request under way; every method runs on the engine's thread."""

    def __init__(
        self, number: int, user_id: str, sender: Any, inputs: Inputs, prompt: list[int],
        excluded: bool, wanted: frozenset[str],
    ) -> None:  # fmt: skip
        self.number, self.user_id = number, user_id
        self._sender, self._prompt, self._excluded = sender, prompt, excluded
        self._wanted = wanted
        self._streaming = inputs.flag("streaming")
        self._log_probs = inputs.flag("return_log_probs")
        self._metrics = inputs.flag("return_perf_metrics")
        self._counts = [n for n in ("num_input_tokens", "num_output_tokens")
                        if inputs.flag(f"return_{n}")]  # fmt: skip
        self._drafts = inputs.ids("draft_input_ids")
        self._stop_words = inputs.words("stop_words_list")
        self.tokens: list[int] = []
        self._scores: list[float] = []

    def take(self, chunk: TokenChunk) -> bool:
        """Send what is due; True when it was the last."""
        before = len(self.tokens)
        done = chunk.finish is not None
        for n, token in enumerate(chunk.tokens):
            if self._drafts and self._refused(token):
                self._add(token, chunk, n)
                done = True
                break
            self._add(token, chunk, n)
            if any(self.tokens[-len(w) :] == list(w) for w in self._stop_words if w):
                done = True
                break
        if chunk.finish == "error":
            self._sender.send(
                pb_utils.InferenceResponse(error=pb_utils.TritonError(chunk.error)), flags=FINAL
            )
        elif done:
            self._send(before, chunk.usage or Usage(), last=True)
        elif self._streaming and len(self.tokens) > before:
            self._send(before, None, last=False)
        return done

    def _refused(self, token: int) -> bool:
        place = len(self.tokens)
        return place < len(self._drafts) and self._drafts[place] != token

    def _add(self, token: int, chunk: TokenChunk, n: int) -> None:
        self.tokens.append(token)
        if chunk.log_probs:
            self._scores.append(chunk.log_probs[n])

    def _accepted(self) -> int:
        pairs = zip(self.tokens, self._drafts, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _send(self, before: int, usage: Usage | None, *, last: bool) -> None:
        ids = self.tokens[before:] if self._streaming else self.tokens
        if not self._streaming and not self._excluded:
            ids = self._prompt + ids
        arrays: dict[str, Any] = {
            "output_ids": np.array([[ids]], np.int32).reshape(1, 1, len(ids)),
            "sequence_length": np.array([[len(ids)]], np.int32),
        }
        if self._log_probs:
            scores = self._scores[before:] if self._streaming else self._scores
            arrays["output_log_probs"] = np.array([[scores]], np.float32)
            arrays["cum_log_probs"] = np.array([[sum(self._scores)]], np.float32)
        if usage is not None:
            arrays |= self._final(usage)
        # What nobody asked for must not be sent: see llm_serving/responses.py.
        tensors = [pb_utils.Tensor(name, a) for name, a in arrays.items() if name in self._wanted]
        self._sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL if last else 0)

    def _final(self, usage: Usage) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        counts = {"num_input_tokens": len(self._prompt), "num_output_tokens": len(self.tokens)}
        figures |= {name: np.int32(counts[name]) for name in self._counts}
        if self._metrics:
            reused, total = usage.kv_blocks_reused, usage.kv_blocks_total
            accepted = self._accepted()
            figures |= {
                "kv_cache_alloc_new_blocks": np.int32(total - reused),
                "kv_cache_reused_blocks": np.int32(reused),
                "kv_cache_alloc_total_blocks": np.int32(total),
                "arrival_time_ns": np.int64(usage.arrived * _NS),
                "first_scheduled_time_ns": np.int64(usage.first_scheduled * _NS),
                "first_token_time_ns": np.int64(usage.first_token * _NS),
                "last_token_time_ns": np.int64(usage.last_token * _NS),
                "acceptance_rate": np.float32(accepted / max(len(self._drafts), 1)),
                "total_accepted_draft_tokens": np.int32(accepted),
                "total_draft_tokens": np.int32(len(self._drafts)),
            }
        return {name: np.array([[value]]) for name, value in figures.items()}
