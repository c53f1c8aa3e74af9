"""Errors in OpenAI's shape: one JSON object with message, type, param and code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from toolkit.gateway.openai.fields import UNSUPPORTED
from toolkit.gateway.work import GatewayError

SERVER_ERROR = "server_error"

_Finding = tuple[ErrorDetails, str, tuple[str, ...]]


class ErrorDetail(BaseModel):
    """What is wrong; ``param`` is the request's field where there is one."""

    model_config = ConfigDict(title="ErrorDetail")

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


def error_body(error: GatewayError) -> bytes:
    """The JSON that tells a client of ``error``."""
    detail = {
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    return orjson.dumps({"error": detail})


def error_headers(error: GatewayError) -> list[tuple[bytes, bytes]]:
    """What goes with the status: when to come back, and how to say who one is.

    ``retry-after`` counts whole seconds; OpenAI's clients prefer ``retry-after-ms``.
    """
    headers = []
    if error.retry_after_s is not None:
        milliseconds = max(0, math.ceil(error.retry_after_s * 1000))
        headers.append((b"retry-after", b"%d" % math.ceil(milliseconds / 1000)))
        headers.append((b"retry-after-ms", b"%d" % milliseconds))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def internal_error() -> GatewayError:
    """A defect of ours: the client learns nothing of its inside."""
    return GatewayError(
        500, "The gateway failed on this request.", kind=SERVER_ERROR, code="internal_error"
    )


def unsupported(param: str, why: str) -> GatewayError:
    """A field that OpenAI's API has and this one cannot keep."""
    return GatewayError(400, f"'{param}' {why}.", code="unsupported_parameter", param=param)


def invalid(param: str, why: str) -> GatewayError:
    """A field with a value that makes no sense."""
    return GatewayError(
        400, f"Invalid value for '{param}': {why}.", code="invalid_value", param=param
    )


def of_validation(error: ValidationError, body: bytes) -> GatewayError:
    """The first of pydantic's findings, with the field named as a client would write it."""
    found = error.errors(include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return GatewayError(400, f"The body is not JSON: {found[0]['msg']}.", code="invalid_json")
    first, param = _most_telling(found, _parsed(body))
    if not param:
        return GatewayError(
            400, f"The body must be a JSON object: {first['msg']}.", code="invalid_type"
        )
    if first["type"] == "missing":
        return GatewayError(
            400,
            f"Missing required parameter: '{param}'.",
            code="missing_required_parameter",
            param=param,
        )
    if first["type"] == UNSUPPORTED:
        return unsupported(param, first["msg"])
    return invalid(param, first["msg"])


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _most_telling(found: Sequence[ErrorDetails], body: Any) -> tuple[ErrorDetails, str]:
    """The finding to show, with the field as a client would write it.

    Where several types are allowed, pydantic says of each what is wrong. The client meant the
    type with the fewest findings, and of those the one that came furthest into the value.
    """
    field = found[0]["loc"][:1]
    candidates = [
        (each, *_written(each["loc"], body, missing=each["type"] == "missing"))
        for each in found
        if each["loc"][:1] == field
    ]
    counts = Counter(members for _, _, members in candidates)

    def telling(
        candidate: tuple[ErrorDetails, str, tuple[str, ...]],
    ) -> tuple[bool, int, int, bool]:
        each, path, members = candidate
        kind = each["type"]
        depth = path.count(".") + path.count("[")
        return kind == UNSUPPORTED, -counts[members], depth, not kind.endswith("_type")

    first, param, _ = max(candidates, key=telling)
    return first, param


def _written(
    location: Sequence[int | str], body: Any, *, missing: bool
) -> tuple[str, tuple[str, ...]]:
    """``messages[0].content`` from a location; and the union members that pydantic names in it."""
    written, here, members = "", body, []
    for place, part in enumerate(location):
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            written += f"[{part}]"
            here = here[part]
            continue
        lacks = missing and place == len(location) - 1
        if isinstance(here, dict) and (part in here or lacks):
            written += f".{part}" if written else str(part)
            here = here.get(part)
        else:
            members.append(str(part))
    return written, tuple(members)
