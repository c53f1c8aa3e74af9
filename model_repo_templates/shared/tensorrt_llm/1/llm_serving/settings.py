"""What the deployment file decided for this model, read from ``settings.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Tokens of one prompt and of prompt plus output."""

    max_input_len: int
    max_seq_len: int


@dataclass(frozen=True)
class Requests:
    """Defaults and bounds of what one request may ask for.

    ``default_deadline_s`` is the longest time a request may take unless it says so itself.
    """

    default_max_tokens: int = 32
    max_stop_words: int = 64
    max_bad_words: int = 64
    max_word_bytes: int = 1024
    default_deadline_s: float | None = None


@dataclass(frozen=True)
class Streaming:
    """How often text goes out.

    A streamed response costs about 0.3 ms of processor time over stub, server and client,
    whatever it carries. ``responses_per_core`` bounds the responses a second, per processor
    core, that all streams share: below it every token is sent at once, above it tokens of one
    request are merged. 0 means no bound.
    """

    responses_per_core: float = 75.0


@dataclass(frozen=True)
class Housekeeping:
    """Seconds between two looks at cancellations and at the engine's figures.

    ``engine_families`` is off where NVIDIA's own backend exports the engine's metrics.
    """

    cancellation_period_s: float = 0.1
    metrics_period_s: float = 0.25
    drain_timeout_s: float = 30.0
    engine_families: bool = True


@dataclass(frozen=True)
class Settings:
    """One rendered model; ``engine`` is handed to the adapter as it is."""

    model_name: str
    limits: Limits
    requests: Requests
    streaming: Streaming
    housekeeping: Housekeeping
    engine: Mapping[str, Any]


def load(path: Path) -> Settings:
    """Read ``path``.

    Raises:
        ValueError: an unknown or missing field, named with its section.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    sections = {
        "limits": Limits,
        "requests": Requests,
        "streaming": Streaming,
        "housekeeping": Housekeeping,
    }
    typed: dict[str, Any] = {
        name: _section(kind, content.pop(name, {}), f"{path.name}: {name}")
        for name, kind in sections.items()
    }
    return _section(Settings, {**content, **typed}, path.name)


def _section(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where}: unknown fields {', '.join(unknown)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
