"""The deployment's model inside Triton: requests in, streams of text out.

Triton's python backend loads this file; the engine behind it comes from ``adapter.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import triton_python_backend_utils as pb_utils  # noqa: E402
from adapter import create_engine  # noqa: E402
from llm_serving import responses, settings  # noqa: E402
from llm_serving.engine_api import (  # noqa: E402
    GenerationRequest,
    QueueFullError,
    RequestRefusedError,
    TokenChunk,
)
from llm_serving.metrics import Metrics  # noqa: E402
from llm_serving.request import ParsedRequest, parse  # noqa: E402
from llm_serving.sender import Sender  # noqa: E402
from llm_serving.stream import Stream  # noqa: E402
from llm_serving.tensors import FieldError, Fields  # noqa: E402
from llm_serving.tokenizer import TextTokenizer  # noqa: E402
from llm_serving.unsupported import check_parameters  # noqa: E402
from llm_serving.watch import Watch  # noqa: E402


class TritonPythonModel:
    """One instance holds one engine; its batch is the engine's own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load tokenizer and engine and start the three threads."""
        self._settings = settings.load(HERE / "settings.json")
        config = json.loads(args["model_config"])
        self._inputs = frozenset(each["name"] for each in config["input"])
        self._tokenizer = TextTokenizer(HERE / "tokenizer")
        instance = args["model_instance_name"]
        self._engine = create_engine(dict(self._settings.engine), HERE, instance)
        self._ids = itertools.count(1)
        self._dead = threading.Lock()
        self._sender = Sender(self._settings.streaming, self._engine.cancel, self._die)
        housekeeping = self._settings.housekeeping
        metrics = Metrics(
            self._settings.model_name,
            args["model_version"],
            instance=instance if _instances(config) > 1 else "",
            engine_families=housekeeping.engine_families,
        )
        self._watch = Watch(housekeeping, self._engine, self._sender, metrics, self._die)
        self._sender.start()
        self._engine.start(self._on_chunks)
        self._watch.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Hand requests to the engine; the answers come from the sender's thread."""
        for request in requests:
            self._accept(request)

    def finalize(self) -> None:
        """Let running requests end, then stop; what is left by then gets an error."""
        give_up = time.monotonic() + self._settings.housekeeping.drain_timeout_s
        while self._sender.streams and time.monotonic() < give_up:
            time.sleep(0.05)
        self._watch.close()
        self._engine.close()
        self._sender.close()

    def _on_chunks(self, chunks: list[TokenChunk]) -> None:
        self._watch.engine_thread = threading.current_thread()
        self._sender.put(chunks)

    def _accept(self, request: Any) -> None:
        handle = request.get_response_sender()
        codes = pb_utils.TritonError
        try:
            check_parameters(request.parameters(), self._inputs)
            fields = Fields(lambda name: _read(request, name))
            if fields.flag("stop"):
                self._stop(request.request_id())
                responses.send_error(handle, "request cancelled", codes.CANCELLED)
            else:
                self._submit(fields, handle, request)
        except FieldError as error:
            responses.send_error(handle, str(error), codes.INVALID_ARG)
        except RequestRefusedError as error:
            responses.send_error(handle, f"request refused: {error}", codes.INVALID_ARG)
        except QueueFullError as error:
            message = f"queue is full, retry later: {error}"
            responses.send_error(handle, message, codes.UNAVAILABLE)

    def _submit(self, fields: Fields, handle: Any, request: Any) -> None:
        parsed = parse(fields, self._tokenizer, self._settings.limits, self._settings.requests)
        request_id = next(self._ids)
        wanted = request.requested_output_names()
        client_id = request.request_id()
        stream = Stream(request_id, parsed, self._tokenizer, handle, client_id, wanted)
        self._sender.open(stream)
        try:
            self._engine.submit(_generation(request_id, parsed))
        except (QueueFullError, RequestRefusedError):
            self._sender.drop(stream)
            raise

    def _stop(self, client_id: str) -> None:
        """Cancel by the id that a client gave its request, as upstream's ``stop`` does."""
        for stream in list(self._sender.streams.values()):
            if client_id and stream.client_id == client_id:
                self._engine.cancel(stream.request_id)

    def _die(self, error: BaseException) -> None:
        """Answer everything with an error and end this process.

        A model without an engine cannot recover, and only a process that is gone is noticed
        and restarted.
        """
        if not self._dead.acquire(blocking=False):
            return
        pb_utils.Logger.log_error(f"{self._settings.model_name} is failing: {error!r}")
        self._sender.fail_all(f"the engine failed: {error!r}")
        os._exit(1)


def _generation(request_id: int, parsed: ParsedRequest) -> GenerationRequest:
    deadline = parsed.deadline_s
    return GenerationRequest(
        request_id=request_id,
        prompt=parsed.prompt,
        sampling=parsed.sampling,
        priority=parsed.priority,
        deadline=None if deadline is None else time.monotonic() + deadline,
        # A stop word is seen in the text, so the text has to come as it is generated.
        stream=parsed.wishes.stream or bool(parsed.wishes.stop_words),
        adapter=parsed.adapter,
        guide=parsed.guide,
        draft_tokens=parsed.draft_tokens,
    )


def _instances(config: dict[str, Any]) -> int:
    return sum(group.get("count", 1) for group in config.get("instance_group", ()))


def _read(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()
