"""One request to a model of the same server."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import triton_python_backend_utils as pb_utils

from . import wire

_FULL = ("exceeds maximum queue size", "timeout expired", "timed out")
"""How Triton's queue says that a request cannot wait (src/dynamic_batch_scheduler of the core)."""


_KEPT_S = 2.0
_kept: deque[tuple[float, Any]] = deque()
"""Responses of the last seconds. Triton's python backend of 24.06 to 24.11 lets go of a finished
request's responses on a thread without Python's lock (python_backend pull 390); as long as somebody
here holds them too, it is not that thread that frees them."""


def _keep(response: Any) -> None:
    now = time.monotonic()
    _kept.append((now, response))
    with suppress(IndexError):
        while _kept[0][0] < now - _KEPT_S:
            _kept.popleft()


class BackendError(Exception):
    """The model answered with an error."""

    @property
    def retryable(self) -> bool:
        """Whether the model was only busy."""
        return any(each in str(self).lower() for each in _FULL)


class Call:
    """A request with an id of its own, by which it can be cancelled from another thread."""

    def __init__(self, model: str, inputs: wire.Arrays, outputs: Sequence[str]) -> None:
        self._model = model
        self._id = uuid.uuid4().hex
        self._request = pb_utils.InferenceRequest(
            model_name=model,
            request_id=self._id,
            requested_output_names=list(outputs),
            inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
        )

    def answers(self) -> Iterator[wire.Answer]:
        """Every response, as it comes.

        Raises:
            BackendError: the model refused the request or failed.
        """
        for response in self._request.exec(decoupled=True):
            _keep(response)
            if response.has_error():
                raise BackendError(response.error().message())
            outputs = {each.name(): each.as_numpy() for each in response.output_tensors()}
            if outputs:
                yield wire.read(outputs)

    def stop(self) -> None:
        """Ask the model to end this request; it answers that with an error or nothing."""
        request = pb_utils.InferenceRequest(
            model_name=self._model,
            request_id=self._id,
            requested_output_names=["output_ids"],
            inputs=[pb_utils.Tensor(name, a) for name, a in wire.stop_inputs().items()],
        )
        with suppress(pb_utils.TritonModelException):
            for _ in request.exec(decoupled=True):
                pass
