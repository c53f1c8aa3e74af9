"""From an address to something that can be measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from toolkit.bench.target import Target
from toolkit.errors import ServerError, SpecError, UnsupportedError
from toolkit.serving.ports import Endpoints
from toolkit.serving.state import ENDED, RunDirectory
from toolkit.spec.models import Deployment

Protocol = Literal["grpc", "http-stream", "http", "openai"]


@dataclass(frozen=True)
class Deployed:
    """A deployment's running server, as clients on this machine reach it.

    ``tokenizer`` is the folder that holds the deployment's ``tokenizer.json``, if it is known;
    ``gateway_url`` is empty where no gateway was started with it.
    """

    grpc_url: str
    http_url: str
    tokenizer: Path | None
    gateway_url: str = ""

    def url(self, protocol: Protocol | None) -> str:
        """Where it is asked over ``protocol``.

        Raises:
            ServerError: it has no gateway, which speaks OpenAI's protocol.
        """
        if protocol != "openai":
            return self.grpc_url if protocol in (None, "grpc") else self.http_url
        if not self.gateway_url:
            raise ServerError(
                "the deployment runs without a gateway",
                where="gateway.enabled",
                hint="deploy it with gateway.enabled: true, or pass --url",
            )
        return self.gateway_url


def find_deployed(deployment: Deployment, root: Path) -> Deployed:
    """Where the server of ``deployment`` runs, by its state below the workspace ``root``.

    Without a state the deployment's own host and ports are taken: it may have been launched
    by other means.

    Raises:
        ServerError: it was stopped or has failed, or its ports are unknown.
    """
    state = RunDirectory(root, deployment.name).read()
    if state is None or (state.status in ENDED and not state.http_port):
        ports = deployment.serving.ports
        if not (ports.grpc and ports.http):
            raise _not_running(deployment.name)
        ends = Endpoints(deployment.serving.host, ports.http, ports.grpc, ports.metrics)
        return Deployed(f"grpc://{ends.grpc_url}", ends.http_url, None)
    if not state.runs:
        raise _not_running(deployment.name)
    found = next(Path(state.repository).rglob("tokenizer.json"), None)
    ends = state.endpoints
    return Deployed(
        f"grpc://{ends.grpc_url}",
        ends.http_url,
        found.parent if found else None,
        state.companion_url,
    )


def target_at(url: str, model: str, protocol: Protocol | None, *, timeout: float) -> Target:
    """A target for ``grpc://host:port`` or ``http://host:port``.

    Args:
        url: Where the server listens; without a scheme, the protocol tells which port it is.
        model: The deployment's name.
        protocol: How to call it; by default as the scheme says, streaming.
        timeout: Seconds for one request.

    Raises:
        SpecError: no usable address, or one that does not fit the protocol.
    """
    from toolkit.bench.openai_http import OpenAiTarget
    from toolkit.bench.triton_grpc import TritonGrpcTarget
    from toolkit.bench.triton_http import TritonHttpTarget

    scheme, host, port = _address(url, protocol)
    wanted: Protocol = protocol or ("grpc" if scheme == "grpc" else "http-stream")
    if (wanted == "grpc") != (scheme == "grpc"):
        raise SpecError(f"protocol {wanted} does not go with this address", where=url)
    if wanted == "grpc":
        return TritonGrpcTarget(host, port, model, timeout=timeout)
    if wanted == "openai":
        return OpenAiTarget(host, port, model, timeout=timeout)
    return TritonHttpTarget(host, port, model, stream=wanted == "http-stream", timeout=timeout)


def _address(url: str, protocol: Protocol | None) -> tuple[str, str, int]:
    if "://" not in url:
        url = f"{'grpc' if protocol in (None, 'grpc') else 'http'}://{url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SpecError(f"not an address: {error}", where=url) from error
    if parts.scheme in ("https", "grpcs"):
        raise UnsupportedError("TLS is not supported", where=url, hint="measure inside the cluster")
    if parts.scheme not in ("grpc", "http") or not host or not port:
        raise SpecError(
            "not an address of a server",
            where=url,
            hint="write it like grpc://localhost:8001 or http://localhost:8000",
        )
    return parts.scheme, host, port


def _not_running(name: str) -> ServerError:
    return ServerError(
        f"{name} is not running",
        hint="start it with `toolkit deploy FILE`, or pass --url",
    )
