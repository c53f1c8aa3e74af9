"""What can be measured: anything that continues a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from toolkit.bench.records import Request, RequestRecord


@dataclass(frozen=True)
class TargetInfo:
    """Who answers: for the report."""

    name: str
    protocol: str
    url: str = ""
    server: str = ""


def authority(host: str, port: int) -> str:
    """Host and port as URLs and requests write them: an address of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Target(Protocol):
    """A server or an engine under test, used from one asyncio event loop.

    To measure an engine inside this process, implement these three: the same workload, load
    and metrics then apply to it as to a server.
    """

    async def open(self) -> TargetInfo:
        """Connect and make sure that it can serve.

        Raises:
            toolkit.errors.ServerError: not reachable, or the model is not there.
        """

    async def generate(self, request: Request) -> RequestRecord:
        """Run ``request`` to its end.

        Never raises for what the target does wrong: that is a failure in the record. When
        cancelled, it takes the request back from the target and lets the cancellation through.
        """

    async def close(self) -> None:
        """Let go of connections."""
