"""The part of Triton's python-backend API that the model uses, recording instead of sending."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


class TritonModelException(Exception):  # noqa: N818 - Triton's name
    pass


class TritonError:
    CANCELLED, INVALID_ARG, UNAVAILABLE = "cancelled", "invalid_arg", "unavailable"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class Tensor:
    def __init__(self, name: str, array: np.ndarray[Any, Any]) -> None:
        self.name, self.array = name, array


class InferenceResponse:
    def __init__(self, outputs: list[Tensor] | None = None, error: TritonError | None = None):
        self.outputs = {each.name: each.array for each in outputs or ()}
        self.error = error


class Logger:
    log_warn = log_error = staticmethod(lambda message: None)


@dataclass
class Handle:
    """A response sender: keeps what is sent and insists on the protocol."""

    sent: list[tuple[InferenceResponse, bool]] = field(default_factory=list)
    cancelled: bool = False
    closed: bool = False

    def send(self, response: InferenceResponse, flags: int = 0) -> None:
        assert not self.closed, "a response after the last one"
        self.closed = flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL
        self.sent.append((response, self.closed))

    def is_cancelled(self) -> bool:
        assert not self.closed, "the server has freed this request"
        return self.cancelled

    @property
    def text(self) -> str:
        return b"".join(
            response.outputs["text_output"][0] for response, _ in self.sent if not response.error
        ).decode()

    @property
    def last(self) -> InferenceResponse:
        assert self.closed
        return self.sent[-1][0]


class Metric:
    def __init__(self, log: list[tuple[str, float]]) -> None:
        self._log = log
        self.value = 0.0

    def set(self, value: float) -> None:
        self._log.append(("set", value))
        self.value = value

    def increment(self, value: float) -> None:
        assert value >= 0, "a counter cannot go down"
        self._log.append(("increment", value))
        self.value += value


class MetricFamily:
    GAUGE, COUNTER = "gauge", "counter"
    created: dict[str, dict[tuple[tuple[str, str], ...], Metric]]
    log: list[tuple[str, float]]
    created, log = {}, []

    def __init__(self, name: str, description: str, kind: str) -> None:
        self._metrics = self.created[name] = {}

    def Metric(self, labels: dict[str, str]) -> Metric:  # noqa: N802 - Triton's name
        metric = self._metrics[tuple(sorted(labels.items()))] = Metric(self.log)
        return metric
