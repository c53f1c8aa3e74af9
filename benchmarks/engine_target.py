"""The CPU engine of a rendered repository, driven in this process: no server in between."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from toolkit.bench.records import Request, RequestRecord, Usage, clock
from toolkit.bench.target import TargetInfo


class EngineTarget:
    """A benchmark target that hands token ids to the engine and takes token ids back.

    Text is tokenized before and detokenized after the measured time, so this is the ceiling
    for whatever stands between a client and the engine.

    Args:
        model: ``<repository>/<deployment>/1``, from which engine and settings are taken.
    """

    def __init__(self, model: Path) -> None:
        self._model = model
        self._calls: dict[int, tuple[RequestRecord, asyncio.Future[None]]] = {}

    async def open(self) -> TargetInfo:
        """Load the engine and start its thread."""
        from tokenizers import Tokenizer

        sys.path.insert(0, str(self._model))
        import adapter
        from llm_serving import engine_api

        self._api: Any = engine_api
        self._loop = asyncio.get_running_loop()
        self._tokenizer = Tokenizer.from_file(str(self._model / "tokenizer" / "tokenizer.json"))
        settings = json.loads((self._model / "settings.json").read_text())
        self._engine = adapter.create_engine(settings["engine"], self._model)
        generation = self._model / "tokenizer" / "generation_config.json"
        stop = json.loads(generation.read_text())["eos_token_id"]
        self._stop = (stop,) if isinstance(stop, int) else tuple(stop)
        self._engine.start(self._on_chunks)
        return TargetInfo(self._model.parents[1].name, "in process", server="paged engine")

    async def generate(self, request: Request) -> RequestRecord:
        """Run one request to its end."""
        record = RequestRecord(request)
        prompt = tuple(self._tokenizer.encode(request.prompt).ids)
        done: asyncio.Future[None] = self._loop.create_future()
        self._calls[request.number] = (record, done)
        sampling = self._api.Sampling(
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens or 0,
            stop_token_ids=self._stop,
        )
        record.sent = clock()
        self._engine.submit(self._api.GenerationRequest(request.number, prompt, sampling))
        try:
            await done
        except asyncio.CancelledError:
            self._engine.cancel(request.number)
            raise
        return record

    async def close(self) -> None:
        """Stop the engine."""
        await asyncio.to_thread(self._engine.close)

    def _on_chunks(self, chunks: list[Any]) -> None:
        self._loop.call_soon_threadsafe(self._take, chunks, clock())

    def _take(self, chunks: list[Any], when: float) -> None:
        for chunk in chunks:
            record, done = self._calls[chunk.request_id]
            if chunk.tokens:
                record.responses.append(when)
            if chunk.finish and not done.done():
                usage = chunk.usage
                record.complete(
                    when,
                    Usage(
                        prompt_tokens=usage.prompt_tokens,
                        output_tokens=usage.output_tokens,
                        cached_tokens=usage.cached_tokens,
                        draft_tokens=usage.draft_tokens,
                        accepted_draft_tokens=usage.accepted_draft_tokens,
                        finish_reason=chunk.finish,
                    ),
                )
                done.set_result(None)
