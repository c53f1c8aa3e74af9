"""What the CPU engine answers when it is driven directly."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Sequence
from pathlib import Path

from llm_serving.detokenizer import Detokenizer
from llm_serving.engine_api import GenerationRequest, Sampling, TokenChunk
from llm_serving.tokenizer import TextTokenizer
from paged_engine import create
from topology import engine_settings


class Reference:
    """Greedy answers, many at once."""

    def __init__(self, compiled: Path, checkpoint: Path) -> None:
        self.tokenizer = TextTokenizer(checkpoint)
        self._engine = create(engine_settings(), compiled)
        self._chunks: queue.SimpleQueue[TokenChunk] = queue.SimpleQueue()
        self._ids = itertools.count(1)
        self._engine.start(lambda chunks: [self._chunks.put(each) for each in chunks])

    def tokens(self, prompts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Tokens that follow each prompt, without the end token."""
        numbers = {next(self._ids): prompt for prompt in prompts}
        found: dict[int, list[int]] = {number: [] for number in numbers}
        sampling = Sampling(max_tokens, stop_token_ids=self.tokenizer.end_tokens)
        for number, prompt in numbers.items():
            tokens = self.tokenizer.encode(prompt)
            self._engine.submit(GenerationRequest(number, tokens, sampling))
        open_still = set(numbers)
        while open_still:
            chunk = self._chunks.get(timeout=120)
            assert chunk.finish in (None, "stop", "length"), chunk.error
            found[chunk.request_id] += chunk.tokens
            if chunk.finish:
                open_still.remove(chunk.request_id)
        return list(found.values())

    def texts(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """The same as text."""
        return [
            Detokenizer(self.tokenizer).feed(tokens, final=True)
            for tokens in self.tokens(prompts, max_tokens)
        ]

    def close(self) -> None:
        self._engine.close()
