"""Look at all targets at once, within a deadline that none of them can stretch."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from toolkit.errors import SpecError
from toolkit.gateway.watch.families import read
from toolkit.gateway.watch.reading import Figures, Reading, SourceReading, Target
from toolkit.serving.metrics import parse

_MOST_BYTES = 32 << 20


def look(targets: Sequence[Target], timeout: float = 2.0) -> Reading:
    """Read the metrics of every target; one that does not answer in ``timeout`` seconds says so.

    Each has a thread of its own, which nobody waits for after the deadline.
    """
    found: dict[str, SourceReading] = {}
    threads = [
        threading.Thread(target=lambda each=each: _put(found, each, timeout), daemon=True)
        for each in targets
    ]
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {timeout:g} s"
    return Reading(
        tuple(
            found.get(each.url) or SourceReading(each, time.monotonic(), None, late)
            for each in targets
        )
    )


def target_at(text: str, *, verify: bool = True) -> Target:
    """The target at the address of a gateway or of a Triton's metrics.

    Args:
        text: ``http://host:port``, ``host:port``, or with a path other than ``/metrics``; or
            ``host:port/port``, a Triton's gRPC and metrics ports as in ``gateway.replicas``.
        verify: Whether a certificate has to be trusted.

    Raises:
        SpecError: it is no address.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    address, _, path = rest.partition("/")
    replica = ""
    if path.isdecimal():
        replica, address = address, f"{address.rpartition(':')[0]}:{path}"
        path = ""
    url = f"{scheme}://{address}/{path or 'metrics'}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SpecError(
            "not an address of a gateway or of metrics",
            where=text,
            hint="write it like http://localhost:9000, or HOST:8001/8002 for a Triton's ports",
        )
    return Target(address, url, replica, verify=verify)


def _put(found: dict[str, SourceReading], target: Target, timeout: float) -> None:
    figures, error = None, ""
    try:
        figures = _figures(target, timeout)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        error = _reason(problem)
    found[target.url] = SourceReading(target, time.monotonic(), figures, error)


def _figures(target: Target, timeout: float) -> Figures:
    metrics = parse(_get(target, timeout))
    figures = read(metrics, target.model)
    if not (figures.classes or figures.replicas or figures.engines):
        known = any(each.startswith(("nv_", "toolkit_")) for each in metrics.families)
        if not known:
            raise ValueError("answers, but with no metrics of a gateway or a Triton")
    return figures


def _get(target: Target, timeout: float) -> str:
    parts = urlsplit(target.url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if not target.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request("GET", path, headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"answers {answer.status} {answer.reason}")
        return answer.read(_MOST_BYTES).decode(errors="replace")
    finally:
        connection.close()


def _reason(problem: Exception) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {problem.verify_message}"
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    return str(problem) or type(problem).__name__
