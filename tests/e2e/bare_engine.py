"""The engine of a rendered repository used directly, without Triton."""

from __future__ import annotations

import importlib
import json
import queue
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_serving.engine_api import GenerationRequest, Sampling


class BareEngine:
    """Generates greedily from text; ``settings`` override those of the repository."""

    def __init__(self, model: Path, **settings: Any) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer" / "tokenizer.json"))
        generation = json.loads((model / "tokenizer" / "generation_config.json").read_text())
        stop = generation["eos_token_id"]
        self.stop = (stop,) if isinstance(stop, int) else tuple(stop)
        rendered = json.loads((model / "settings.json").read_text())["engine"]
        paged_engine = importlib.import_module("paged_engine")
        self.engine = paged_engine.create({**rendered, **settings}, model / "engine")
        self._chunks: queue.Queue[Any] = queue.Queue()
        self._numbers = iter(range(1, sys.maxsize))
        self.usage: dict[str, Any] = {}
        self.engine.start(lambda chunks: [self._chunks.put(chunk) for chunk in chunks] and None)

    def texts(self, prompts: Sequence[str], max_tokens: int, *, at_once: int = 1) -> list[str]:
        """The continuations of ``prompts``, ``at_once`` of them in flight."""
        found: list[str] = []
        for start in range(0, len(prompts), at_once):
            found += self._batch(prompts[start : start + at_once], max_tokens)
        return found

    def _batch(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        sampling = Sampling(max_tokens=max_tokens, stop_token_ids=self.stop)
        numbers = [next(self._numbers) for _ in prompts]
        tokens: dict[int, list[int]] = {number: [] for number in numbers}
        for number, prompt in zip(numbers, prompts, strict=True):
            ids = tuple(self._tokenizer.encode(prompt).ids)
            self.engine.submit(GenerationRequest(number, ids, sampling))
        left = set(numbers)
        while left:
            chunk = self._chunks.get(timeout=120)
            tokens[chunk.request_id] += chunk.tokens
            if chunk.finish:
                assert not chunk.error, chunk.error
                left.remove(chunk.request_id)
        return [self._tokenizer.decode(tokens[number]) for number in numbers]


@contextmanager
def bare_engine(model: Path, **settings: Any) -> Iterator[BareEngine]:
    """An engine that is closed at the end."""
    engine = BareEngine(model, **settings)
    try:
        yield engine
    finally:
        engine.engine.close()


SUBJECTS = (
    "the sea", "photosynthesis", "a list in Python", "the moon", "bread", "the number 12",
    "a dragon", "winter", "the French Revolution", "a river",
)  # fmt: skip
FORMS = (
    "Write two sentences about {}.",
    "What should a child know about {}?",
    "Explain {} in simple words.",
    "Once upon a time, somebody who loved {} said:",
    "Three facts about {}:\n1.",
)
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = tuple(CHAT.format(form.format(subject)) for form in FORMS for subject in SUBJECTS)
"""Fifty chat prompts of different lengths."""
