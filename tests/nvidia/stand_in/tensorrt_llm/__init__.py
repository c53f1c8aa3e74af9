"""The documented surface of ``tensorrt_llm`` that the adapter uses, on the CPU engine; for tests.

Signatures, defaults and field names are those of the LLM API reference of TensorRT-LLM 1.2.1
(nvidia.github.io/TensorRT-LLM/1.2.1/llm-api/reference.html and the modules behind it). Nothing is
taken that the documentation does not have: an unknown argument is a TypeError, as upstream.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from .executor import LoRARequest
from .executor.utils import RequestError
from .llmapi import GuidedDecodingParams

__version__ = os.environ.get("STAND_IN_VERSION", "1.2.1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llm_serving.engine_api import GenerationRequest, Sampling, TokenChunk
from paged_engine import create


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int = 32
    bad: str | list[str] | None = None
    bad_token_ids: list[int] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    embedding_bias: Any = None
    logits_processor: Any = None
    apply_batched_logits_processor: bool = False
    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    top_p: float | None = None
    top_p_min: float | None = None
    top_p_reset_ids: int | None = None
    top_p_decay: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    beam_search_diversity_rate: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    length_penalty: float | None = None
    early_stopping: int | None = None
    no_repeat_ngram_size: int | None = None
    min_p: float | None = None
    beam_width_array: list[int] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_context_logits: bool = False
    return_generation_logits: bool = False
    exclude_input_from_output: bool = True
    return_encoder_output: bool = False
    return_perf_metrics: bool = False
    additional_model_outputs: list[Any] | None = None
    lookahead_config: Any = None
    guided_decoding: GuidedDecodingParams | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[Any] = field(default_factory=list)
    prompt_logprobs: list[Any] = field(default_factory=list)
    finish_reason: Literal["stop", "length", "timeout", "cancelled"] | None = None
    stop_reason: int | str | None = None
    generation_logits: Any = None
    additional_context_outputs: Any = None
    additional_generation_outputs: Any = None
    disaggregated_params: Any = None
    request_perf_metrics: Any = None


class RequestOutput:
    """A result that grows; iterated asynchronously, one step a response."""

    def __init__(self, llm: LLM, request_id: int, prompt: list[int], streaming: bool) -> None:
        self.request_id = request_id
        self.prompt_token_ids = prompt
        self.outputs = [CompletionOutput(0)]
        self.finished = False
        self.cached_tokens = 0
        self._llm, self._streaming = llm, streaming
        self._aborted = False
        # Upstream binds its queue to the running loop, so it has to be created inside one.
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def abort(self) -> None:
        self._aborted = True
        self._llm._engine.cancel(self.request_id)

    def aborted(self) -> bool:
        return self._aborted

    def __aiter__(self) -> RequestOutput:
        return self

    async def __anext__(self) -> RequestOutput:
        if self.finished:
            raise StopAsyncIteration
        while True:
            item = await self._queue.get()
            if isinstance(item, BaseException):
                self.finished = True
                raise item
            self._llm._apply(self, item)
            if self._streaming or self.finished:
                return self


class LLM:
    """What ``tensorrt_llm.LLM`` is with the PyTorch backend."""

    def __init__(
        self,
        model: str,
        tokenizer: Any = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        folder = Path(model)
        told = json.loads((folder / "stand_in.json").read_text())
        if told.get("fail_to_load"):
            raise RuntimeError("CUDA out of memory")
        self._told = told
        arguments = {"model": model, "tensor_parallel_size": tensor_parallel_size, **kwargs}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = {"arguments": arguments, "visible": visible}
        with (folder / "seen.jsonl").open("a") as file:
            file.write(json.dumps(seen) + "\n")
        from llm_serving.tokenizer import TextTokenizer

        self._tokenizer = TextTokenizer(folder)
        self._engine = create(told["engine"], folder)
        self._results: dict[int, RequestOutput] = {}
        self._samplings: dict[int, SamplingParams] = {}
        self._ids = itertools.count(1)
        self._shut_down = False
        self._submitted = threading.Event()
        self._engine.start(self._on_chunks)

    def generate_async(
        self,
        inputs: Any,
        sampling_params: SamplingParams | None = None,
        lora_request: LoRARequest | None = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        trace_headers: Any = None,
        _postproc_params: Any = None,
        scheduling_params: Any = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        if self._shut_down:
            raise RuntimeError("LLM is shutting down")
        assert isinstance(sampling_params, SamplingParams)
        assert isinstance(streaming, bool)
        assert isinstance(inputs, list)
        if lora_request is not None:
            self._note({"adapter": [lora_request.lora_name, lora_request.lora_int_id,
                                    lora_request.lora_path]})  # fmt: skip
        if sampling_params.guided_decoding is not None:
            self._note({"guide": repr(sampling_params.guided_decoding)})
        if sampling_params.seed == self._told.get("request_error_seed"):
            raise RequestError("the prompt is too long for this executor")
        if sampling_params.seed == self._told.get("fatal_seed"):
            raise RuntimeError("the executor's worker has died")
        number = next(self._ids)
        result = RequestOutput(self, number, inputs, streaming)
        self._results[number] = result
        self._samplings[number] = sampling_params
        sampling = self._sampling(sampling_params)
        self._engine.submit(GenerationRequest(number, tuple(inputs), sampling))
        self._submitted.set()
        return result

    async def get_stats_async(self, timeout: float | None = 2) -> AsyncIterator[dict[str, Any]]:
        if not self._submitted.is_set():
            return
        stats = self._engine.stats()
        yield {
            "iter": stats.iterations,
            "numActiveRequests": stats.running,
            "numQueuedRequests": stats.waiting,
            "maxNumActiveRequests": stats.max_batch_size,
            "gpuMemUsage": 7_000_000,
            "cpuMemUsage": stats.memory_bytes,
            "pinnedMemUsage": 0,
            "kvCacheStats": {
                "maxNumBlocks": stats.blocks_max,
                "freeNumBlocks": stats.blocks_free,
                "usedNumBlocks": stats.blocks_used,
                "tokensPerBlock": stats.tokens_per_block,
                "reusedBlocks": stats.blocks_reused_total,
                "missedBlocks": stats.blocks_looked_up_total - stats.blocks_reused_total,
            },
            "inflightBatchingStats": {
                "numScheduledRequests": stats.running,
                "numContextRequests": stats.context_requests,
                "numGenRequests": stats.generation_requests,
                "numPausedRequests": 0,
                "numCtxTokens": stats.context_tokens,
                "microBatchId": 0,
            },
        }
        await asyncio.sleep(timeout or 0)

    def shutdown(self) -> None:
        self._shut_down = True
        self._engine.close()

    def _note(self, what: dict[str, Any]) -> None:
        path = Path(self._told["notes"])
        with path.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def _sampling(self, given: SamplingParams) -> Sampling:
        ends: list[int] = list(given.stop_token_ids or [])
        end = given.end_id
        if end is None:
            # Text is tokenized only where the end token is the API's own choice.
            end = self._tokenizer.end_tokens[0]
        elif given.bad is not None:
            raise RuntimeError("SamplingParams.bad is not processed by tokenizer")
        if not given.ignore_eos and end >= 0:
            ends.append(end)
        words = [(token,) for token in given.bad_token_ids or ()]
        for text in given.bad or ():
            words.append(self._tokenizer.encode(text, special=False))
        greedy = given.top_k == 1 or (
            given.temperature is None and given.top_p is None and given.top_k is None
        )
        return Sampling(
            max_tokens=given.max_tokens,
            min_tokens=given.min_tokens or 0,
            temperature=0.0 if greedy else (given.temperature or 1.0),
            top_k=given.top_k or 0,
            top_p=given.top_p or 1.0,
            repetition_penalty=given.repetition_penalty or 1.0,
            presence_penalty=given.presence_penalty or 0.0,
            frequency_penalty=given.frequency_penalty or 0.0,
            seed=given.seed or 0,
            stop_token_ids=tuple(ends),
            bad_words=tuple(words),
            log_probs=given.logprobs is not None,
        )

    def _on_chunks(self, chunks: list[TokenChunk]) -> None:
        for chunk in chunks:
            result = self._results.get(chunk.request_id)
            if result is not None and not result._loop.is_closed():
                result._loop.call_soon_threadsafe(result._queue.put_nowait, chunk)

    def _apply(self, result: RequestOutput, chunk: TokenChunk) -> None:
        output, given = result.outputs[0], self._samplings[result.request_id]
        output.token_ids.extend(chunk.tokens)
        if given.logprobs is not None:
            pairs = zip(chunk.tokens, chunk.log_probs, strict=True)
            if self._told.get("plain_logprobs"):
                output.logprobs.extend(score for _, score in pairs)
            else:
                output.logprobs.extend({token: Logprob(score, 1)} for token, score in pairs)
        if chunk.finish is None:
            return
        result.finished = True
        del self._results[result.request_id]
        if chunk.finish == "error":
            raise RequestError(chunk.error)
        output.finish_reason = "cancelled" if chunk.finish == "cancelled" else chunk.finish
        if chunk.finish == "stop" and self._told.get("keeps_end_token"):
            # Some releases hand it out with the rest.
            output.token_ids.append(self._tokenizer.end_tokens[0])
            if given.logprobs is not None:
                output.logprobs.append({self._tokenizer.end_tokens[0]: Logprob(-0.1, 1)})
        if given.return_perf_metrics:
            output.request_perf_metrics = _metrics(chunk)
        result.cached_tokens = chunk.usage.cached_tokens if chunk.usage else 0


def _metrics(chunk: TokenChunk) -> SimpleNamespace:
    usage = chunk.usage
    assert usage is not None
    reused, total = usage.kv_blocks_reused, usage.kv_blocks_total
    return SimpleNamespace(
        timing_metrics=SimpleNamespace(
            arrival_time=timedelta(seconds=usage.arrived),
            first_scheduled_time=timedelta(seconds=usage.first_scheduled),
            first_token_time=timedelta(seconds=usage.first_token),
            last_token_time=timedelta(seconds=usage.last_token or time.monotonic()),
        ),
        kv_cache_metrics=SimpleNamespace(
            num_total_allocated_blocks=total,
            num_new_allocated_blocks=total - reused,
            num_reused_blocks=reused,
            num_missed_blocks=total - reused,
            kv_cache_hit_rate=reused / max(total, 1),
        ),
        speculative_decoding=SimpleNamespace(
            acceptance_rate=0.0,
            total_accepted_draft_tokens=usage.accepted_draft_tokens,
            total_draft_tokens=usage.draft_tokens,
        ),
    )
