"""Is this caller known, and may it have this much now?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from toolkit.gateway.guard.keys import Key, KeyRing
from toolkit.gateway.guard.limits import Exceeded, Meter
from toolkit.gateway.work import GatewayError


@dataclass(frozen=True)
class Caller:
    """Who asks. ``request_class`` is what the key stands for; ``models`` what it may use."""

    id: str = ""
    request_class: str | None = None
    models: tuple[str, ...] = ()


class Grant(Protocol):
    """Permission for one request, held while it runs."""

    def used(self, tokens: int) -> None:
        """So many more tokens were taken, prompts included; the others are given back."""

    def __enter__(self) -> Grant: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Admission(Protocol):
    """Asked twice: when a request comes, and when its size is known."""

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Who asks; header names are in lower case.

        Raises:
            GatewayError: 401.
        """

    def admit(self, caller: Caller, model: str, prompt_tokens: int, max_tokens: int) -> Grant:
        """Let a request in of so many prompt tokens and at most so many of answers.

        Raises:
            GatewayError: 403 for a model that is not the caller's, 429 over a limit.
        """


class OpenAdmission:
    """Without keys: everybody who reaches the port."""

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Anybody."""
        return Caller()

    def admit(self, caller: Caller, model: str, prompt_tokens: int, max_tokens: int) -> Grant:
        """Anything."""
        return _FREE


class KeyedAdmission:
    """With a file of keys."""

    def __init__(self, keys: KeyRing, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._meters: dict[str, Meter] = {}

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """The bearer of a key, in ``Authorization`` as OpenAI's clients send it."""
        scheme, _, text = headers.get("authorization", "").partition(" ")
        key = self._keys.find(text.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise GatewayError(
                401,
                "the API key is missing or not known: send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
            )
        self._meter(key)
        return Caller(key.id, key.request_class, key.models)

    def admit(self, caller: Caller, model: str, prompt_tokens: int, max_tokens: int) -> Grant:
        """Within the key's models and limits."""
        tokens = prompt_tokens + max_tokens
        if caller.models and model not in caller.models:
            raise GatewayError(
                403, f"this API key may not use {model}", code="model_not_allowed", param="model"
            )
        meter = self._meters[caller.id]
        exceeded = meter.start(tokens, self._clock())
        if exceeded is not None:
            raise _over(exceeded)
        return _Counted(meter, tokens, self._clock)

    def _meter(self, key: Key) -> None:
        meter = self._meters.get(key.id)
        if meter is None:
            self._meters[key.id] = Meter(key.limits, self._clock())
        elif meter.limits != key.limits:
            meter.adopt(key.limits, self._clock())


class _Free:
    def used(self, tokens: int) -> None:
        return

    def __enter__(self) -> Grant:
        return self

    def __exit__(self, *_: object) -> None:
        return


_FREE = _Free()


class _Counted:
    def __init__(self, meter: Meter, tokens: int, clock: Callable[[], float]) -> None:
        self._meter, self._reserved, self._clock = meter, tokens, clock
        self._used = 0

    def used(self, tokens: int) -> None:
        self._used += tokens

    def __enter__(self) -> Grant:
        return self

    def __exit__(self, *_: object) -> None:
        self._meter.end(self._reserved, self._used, self._clock())


def _over(exceeded: Exceeded) -> GatewayError:
    name = exceeded.limit.replace("_", " ")
    return GatewayError(
        429,
        f"over the limit of {exceeded.allowed} {name} of this API key",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_s=max(1.0, math.ceil(exceeded.retry_after_s)),
    )
