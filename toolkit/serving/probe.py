"""Questions to a running server over HTTP, with deadlines; no client library."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from toolkit.serving import metrics
from toolkit.serving.ports import Endpoints


def get(url: str, timeout: float, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body of one GET; status 0 when there was no answer within ``timeout`` seconds."""
    return _request("GET", url, None, timeout, headers)


def post(
    url: str, body: Any, timeout: float, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body of one POST of JSON; status 0 when there was no answer in time."""
    return _request("POST", url, json.dumps(body).encode(), timeout, headers)


def _request(
    method: str, url: str, body: bytes | None, timeout: float, headers: dict[str, str] | None
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request(method, parts.path or "/", body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def live(endpoints: Endpoints, timeout: float) -> bool:
    """Whether the server answers at all."""
    return get(f"{endpoints.http_url}/v2/health/live", timeout)[0] == 200


def ready(endpoints: Endpoints, model: str, timeout: float) -> bool:
    """Whether the server is ready, ``model`` included."""
    base = f"{endpoints.http_url}/v2"
    return all(
        get(f"{base}/{path}", timeout)[0] == 200
        for path in ("health/ready", f"models/{model}/ready")
    )


def scrape(endpoints: Endpoints, timeout: float) -> metrics.Metrics | None:
    """The server's metrics; None when it does not answer."""
    status, body = get(endpoints.metrics_url, timeout)
    return metrics.parse(body.decode(errors="replace")) if status == 200 else None
