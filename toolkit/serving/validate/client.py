"""Ask a deployment as its clients do, over gRPC streams, and keep everything that came back."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from toolkit.repository.contract import load_contract
from toolkit.serving.ports import Endpoints

_NUMPY = {
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_UINT64": "uint64",
    "TYPE_FP32": "float32",
    "TYPE_BOOL": "bool",
    "TYPE_STRING": "object",
}
_WIRE = {"TYPE_STRING": "BYTES"}

Values = Mapping[str, Any]
"""Input tensors by name: one Python value each, or a list for ``stop_words``, ``bad_words``."""


def wire_type(dtype: str) -> str:
    """``TYPE_STRING`` of a model's configuration as its metadata name it: ``BYTES``."""
    return _WIRE.get(dtype, dtype.removeprefix("TYPE_"))


@dataclass(frozen=True)
class Answer:
    """All responses to one request.

    ``finals`` has the final flag of each response in order; ``outputs`` the single values of
    the last tensors seen, by name; ``error`` Triton's text when the request failed.
    """

    pieces: tuple[str, ...] = ()
    finals: tuple[bool, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    def count(self, name: str) -> int:
        """The output ``name`` as a whole number; 0 when it did not come."""
        return int(self.outputs.get(name, 0))


class Timeout(Exception):  # noqa: N818 - reads better where it is caught
    """No end of a request within the time allowed."""


class Client:
    """Requests to the model ``model`` of one server; safe to use from several threads.

    Args:
        endpoints: Where the server listens.
        model: The model's name.
        timeout: Seconds that one request may take.
    """

    def __init__(self, endpoints: Endpoints, model: str, timeout: float = 120.0) -> None:
        self.endpoints = endpoints
        self.model = model
        self._timeout = timeout
        contract = load_contract("public")
        self._types = {each.name: each.dtype for each in contract.inputs}
        self._batched = contract.max_batch_size > 0

    def ask(self, prompt: str, max_tokens: int, **values: Any) -> Answer:
        """One request and its whole answer; ``stream`` is true unless given.

        Raises:
            Timeout: it did not end.
        """
        inputs = {"text_input": prompt, "max_tokens": max_tokens, "stream": True, **values}
        with self.open([inputs]) as stream:
            return stream.answer()

    def ask_all(self, prompts: Sequence[str], max_tokens: int, **values: Any) -> list[Answer]:
        """All of ``prompts`` at once, each over a connection of its own."""
        with ThreadPoolExecutor(max(1, len(prompts))) as pool:
            return list(pool.map(lambda each: self.ask(each, max_tokens, **values), prompts))

    @contextlib.contextmanager
    def open(self, requests: Sequence[Values]) -> Iterator[ResponseStream]:
        """Send several requests over one stream; leaving the block cancels what still runs."""
        import tritonclient.grpc as grpc_client

        received: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with grpc_client.InferenceServerClient(self.endpoints.grpc_url) as client:
            client.start_stream(lambda result, error: received.put((result, error)))
            stream = ResponseStream(received, self._timeout)
            try:
                for number, values in enumerate(requests):
                    client.async_stream_infer(
                        self.model,
                        self._tensors(grpc_client, values),
                        request_id=str(number),
                        enable_empty_final_response=True,
                    )
                yield stream
            finally:
                # Cancelling what has just ended can leave a request open inside Triton 2.51,
                # which then waits for it when it is to stop.
                client.stop_stream(cancel_requests=stream.ended < len(requests))

    def metadata(self) -> tuple[dict[str, str], dict[str, str]]:
        """Names and wire types of the model's inputs and outputs."""
        import tritonclient.grpc as grpc_client

        with grpc_client.InferenceServerClient(self.endpoints.grpc_url) as client:
            found = client.get_model_metadata(self.model)
        return (
            {each.name: each.datatype for each in found.inputs},
            {each.name: each.datatype for each in found.outputs},
        )

    def _tensors(self, grpc_client: Any, values: Values) -> list[Any]:
        import numpy as np

        tensors = []
        for name, value in values.items():
            dtype = self._types[name]
            items = value if isinstance(value, list) else [value]
            if dtype == "TYPE_STRING":
                items = [each.encode() for each in items]
            array = np.array([items] if self._batched else items, dtype=_NUMPY[dtype])
            tensor = grpc_client.InferInput(name, list(array.shape), wire_type(dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        return tensors


class ResponseStream:
    """Responses as they arrive on one connection."""

    def __init__(self, received: queue.Queue[tuple[Any, Any]], timeout: float) -> None:
        self._received = received
        self._deadline = time.monotonic() + timeout
        self.ended = 0
        """Requests whose last response has been read."""

    def next(self) -> Answer:
        """The next response, as an answer with at most one piece.

        Raises:
            Timeout: none came in time.
        """
        try:
            result, error = self._received.get(timeout=self._deadline - time.monotonic())
        except (queue.Empty, ValueError):
            raise Timeout from None
        if error is not None:
            self.ended += 1
            return Answer(finals=(True,), error=error.message())
        response = result.get_response()
        outputs = {each.name: _single(result.as_numpy(each.name)) for each in response.outputs}
        text = outputs.get("text_output")
        final = response.parameters["triton_final_response"].bool_param
        self.ended += final
        return Answer(
            pieces=() if text is None else (text,),
            finals=(final,),
            outputs=outputs,
        )

    def answer(self) -> Answer:
        """Everything up to the end of a stream's only request."""
        whole = Answer()
        while True:
            part = self.next()
            whole = Answer(
                whole.pieces + part.pieces,
                whole.finals + part.finals,
                {**whole.outputs, **part.outputs},
                part.error,
            )
            if part.finals[-1]:
                return whole


def _single(array: Any) -> Any:
    if array is None or array.size == 0:
        return None
    value = array.reshape(-1)[0]
    return value.decode(errors="replace") if isinstance(value, bytes) else value.item()
