"""A gRPC client for the tests: tensors in, everything that came back out."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TYPES = {
    "max_tokens": np.int32,
    "min_tokens": np.int32,
    "top_k": np.int32,
    "beam_width": np.int32,
    "num_return_sequences": np.int32,
    "end_id": np.int32,
    "deadline_ms": np.int32,
    "priority": np.int32,
    "temperature": np.float32,
    "top_p": np.float32,
    "repetition_penalty": np.float32,
    "presence_penalty": np.float32,
    "frequency_penalty": np.float32,
    "seed": np.uint64,
    "random_seed": np.uint64,
}
TRITON_TYPES = {"O": "BYTES", "i": "INT32", "f": "FP32", "u": "UINT64", "b": "BOOL"}


@dataclass
class Answer:
    """All responses to one request; ``error`` is the text of the error that ended it."""

    responses: list[dict[str, np.ndarray[Any, Any]]] = field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        return b"".join(each["text_output"].reshape(-1)[0] for each in self.responses).decode()

    def last(self, name: str) -> Any:
        value = self.responses[-1][name].reshape(-1)[0]
        return value.decode() if isinstance(value, bytes) else value


def array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """``value`` as the tensor that a client sends: shape [1, n]; an array goes as it is."""
    if isinstance(value, np.ndarray):
        return value
    values = value if isinstance(value, list) else [value]
    kind: Any = object if isinstance(values[0], str | bytes) else TYPES.get(name, np.bool_)
    return np.array([values], dtype=kind)


def inputs(given: dict[str, Any]) -> list[Any]:
    """Tensors for :mod:`tritonclient.grpc`."""
    import tritonclient.grpc as triton

    tensors = []
    for name, value in given.items():
        data = array(name, value)
        tensor = triton.InferInput(name, list(data.shape), TRITON_TYPES[data.dtype.kind])
        tensor.set_data_from_numpy(data)
        tensors.append(tensor)
    return tensors


class Call:
    """One request on a stream of its own."""

    def __init__(self, url: str, model: str, given: dict[str, Any], request_id: str = "") -> None:
        import tritonclient.grpc as triton

        self._results: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._client = triton.InferenceServerClient(url)
        self._client.start_stream(lambda result, error: self._results.put((result, error)))
        self._client.async_stream_infer(
            model, inputs(given), request_id=request_id, enable_empty_final_response=True
        )
        self.answer = Answer()

    def next(self, timeout: float = 60) -> bool:
        """Wait for one more response; False when there is none after it."""
        result, error = self._results.get(timeout=timeout)
        if error is not None:
            self.answer.error = error.message()
            return False
        response = result.get_response()
        if response.outputs:
            names = [each.name for each in response.outputs]
            self.answer.responses.append({name: result.as_numpy(name) for name in names})
        return not response.parameters["triton_final_response"].bool_param

    def all(self) -> Answer:
        """Wait for the end."""
        while self.next():
            pass
        self.close()
        return self.answer

    def close(self, *, hang_up: bool = False) -> None:
        self._client.stop_stream(cancel_requests=hang_up)
        self._client.close()


def ask(url: str, model: str = "chat", **given: Any) -> Answer:
    """Send one request and wait for all of its answer."""
    return Call(url, model, given).all()
