"""What one request asks, as the LLM API takes it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_serving.engine_api import GenerationRequest, Guide, RequestRefusedError, Sampling
from llm_serving.tokenizer import TextTokenizer

from .settings import LlmApiSettings

_NO_END = -1


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of ``generate_async``."""

    inputs: list[int]
    sampling: dict[str, Any]
    guide: dict[str, Any] | None
    adapter: tuple[str, int, str] | None
    streaming: bool

    def arguments(self) -> dict[str, Any]:
        """By name, with the LLM API's own classes."""
        from tensorrt_llm import SamplingParams

        sampling = dict(self.sampling)
        if self.guide is not None:
            from tensorrt_llm.llmapi import GuidedDecodingParams

            sampling["guided_decoding"] = GuidedDecodingParams(**self.guide)
        found: dict[str, Any] = {
            "inputs": self.inputs,
            "sampling_params": SamplingParams(**sampling),
            "streaming": self.streaming,
        }
        if self.adapter is not None:
            from tensorrt_llm.executor import LoRARequest

            found["lora_request"] = LoRARequest(*self.adapter)
        return found


class RequestWriter:
    """Turns requests into calls, or refuses them by the field."""

    def __init__(self, settings: LlmApiSettings, model_dir: Path, tokenizer: TextTokenizer) -> None:
        self._settings = settings
        self._model_dir = model_dir
        self._tokenizer = tokenizer

    def call(self, request: GenerationRequest) -> Call:
        """The call for one request.

        Raises:
            RequestRefusedError: the deployment does not serve a field.
        """
        self._refuse(request)
        return Call(
            inputs=list(request.prompt),
            sampling=self._sampling(request.sampling),
            guide=None if request.guide is None else _guide(request.guide),
            adapter=None if request.adapter is None else self._adapter(request.adapter),
            streaming=request.stream,
        )

    def _refuse(self, request: GenerationRequest) -> None:
        if request.guide is not None and not self._settings.guided_decoding:
            raise RequestRefusedError("guided_decoding_guide: the deployment has no such engine")
        sampling = request.sampling
        penalties = {
            "repetition_penalty": sampling.repetition_penalty != 1,
            "presence_penalty": sampling.presence_penalty != 0,
            "frequency_penalty": sampling.frequency_penalty != 0,
        }
        for name, wanted in penalties.items():
            if wanted and not self._settings.penalties:
                raise RequestRefusedError(f"{name}: not together with speculative decoding")

    def _adapter(self, name: str) -> tuple[str, int, str]:
        names = list(self._settings.adapters)
        if name not in names:
            raise RequestRefusedError(f"lora_name: {name!r} is none of {', '.join(names)}")
        path = self._model_dir / self._settings.adapters[name]
        return name, names.index(name) + 1, str(path)

    def _sampling(self, sampling: Sampling) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "max_tokens": sampling.max_tokens,
            "detokenize": False,
            "return_perf_metrics": True,
        }
        if sampling.min_tokens:
            wanted["min_tokens"] = sampling.min_tokens
        wanted |= self._ends(sampling)
        wanted |= _choice(sampling)
        if sampling.repetition_penalty != 1:
            wanted["repetition_penalty"] = sampling.repetition_penalty
        if sampling.presence_penalty:
            wanted["presence_penalty"] = sampling.presence_penalty
        if sampling.frequency_penalty:
            wanted["frequency_penalty"] = sampling.frequency_penalty
        if sampling.log_probs:
            wanted["logprobs"] = 1
        return wanted

    def _ends(self, sampling: Sampling) -> dict[str, Any]:
        """End tokens and bad words.

        Words of several tokens can be given as text only, and text is read only where the LLM
        API chooses the end token itself; then its choice is switched off and ours stands in its
        place.
        """
        ends = list(sampling.stop_token_ids)
        single = [word[0] for word in sampling.bad_words if len(word) == 1]
        longer = [word for word in sampling.bad_words if len(word) > 1]
        wanted: dict[str, Any] = {"bad_token_ids": single} if single else {}
        if longer:
            if sampling.min_tokens and ends:
                raise RequestRefusedError("min_tokens: not together with longer bad_words")
            wanted["bad"] = [self._text(word) for word in longer]
            return wanted | {"ignore_eos": True, "stop_token_ids": ends or None}
        if not ends:
            return wanted | {"end_id": _NO_END, "ignore_eos": True}
        wanted |= {"end_id": ends[0], "pad_id": ends[0]}
        return wanted | ({"stop_token_ids": ends[1:]} if ends[1:] else {})

    def _text(self, word: tuple[int, ...]) -> str:
        pieces = b"".join(self._tokenizer.token_bytes[token] for token in word)
        return pieces.decode("utf-8", "replace")


def _choice(sampling: Sampling) -> dict[str, Any]:
    """How the next token is drawn; nothing said is greedy in every release."""
    if sampling.temperature == 0:
        return {}
    # top_p has to be there: releases differ in whether temperature alone means sampling.
    wanted: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.top_k:
        wanted["top_k"] = sampling.top_k
    # Without a seed every request would draw the same numbers.
    wanted["seed"] = secrets.randbits(63) if sampling.seed is None else sampling.seed
    return wanted


def _guide(guide: Guide) -> dict[str, Any]:
    if guide.kind == "json":
        return {"json_object": True}
    field = {"json_schema": "json", "regex": "regex", "ebnf_grammar": "grammar"}[guide.kind]
    return {field: guide.text}
