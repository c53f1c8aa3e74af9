"""From an address to something that can be measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from toolkit.bench.target import Target
from toolkit.errors import ServerError, SpecError, UnsupportedError
from toolkit.serving.state import RunDirectory
from toolkit.spec.models import Deployment

Protocol = Literal["grpc", "http-stream", "http", "openai"]


@dataclass(frozen=True)
class Deployed:
    """A deployment's running server, as clients on this machine reach it.

    ``tokenizer`` is the folder that holds the deployment's ``tokenizer.json``, if it is known;
    ``gateway_url`` is empty where no gateway was started with it. ``digest`` names what it serves.
    """

    grpc_url: str
    http_url: str
    tokenizer: Path | None
    gateway_url: str = ""
    digest: str = ""

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

    Whatever else listens on the deployment's ports is not taken for it: figures of another
    server would bear its name.

    Raises:
        ServerError: it was not deployed there, was stopped or has failed.
    """
    state = RunDirectory(root, deployment.name).read()
    if state is None or not state.runs:
        raise _not_running(deployment, root)
    found = next(Path(state.repository).rglob("tokenizer.json"), None)
    ends = state.endpoints
    return Deployed(
        f"grpc://{ends.grpc_url}",
        ends.http_url,
        found.parent if found else None,
        state.companion_url,
        state.repository_digest,
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


def _not_running(deployment: Deployment, root: Path) -> ServerError:
    ports = deployment.serving.ports
    url = f"grpc://{deployment.serving.host}:{ports.grpc or 'PORT'}"
    return ServerError(
        f"{deployment.name} is not running",
        where=str(root),
        hint=f"start it with `toolkit deploy FILE`; one launched by other means: --url {url}",
    )
