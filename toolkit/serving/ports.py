"""TCP ports for the server: free ones where 0 is asked for, a clear error where one is taken."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import ServerError
from toolkit.serving import procfs
from toolkit.spec.models import Ports
from toolkit.workspace import root_option

DAEMON = "toolkit.serving.daemon"
"""The module that supervises a deployment in the background: its words are workspace and name."""

_NAMES = ("http", "grpc", "metrics")


@dataclass(frozen=True)
class Endpoints:
    """Where a server listens, and how clients on this machine reach it."""

    host: str
    http: int
    grpc: int
    metrics: int

    @property
    def _reachable(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host

    @property
    def http_url(self) -> str:
        """Base URL of Triton's HTTP API."""
        return f"http://{self._reachable}:{self.http}"

    @property
    def grpc_url(self) -> str:
        """Address for a gRPC client, without scheme."""
        return f"{self._reachable}:{self.grpc}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{self._reachable}:{self.metrics}/metrics"


def choose(host: str, ports: Ports) -> Endpoints:
    """Bind every port once, so that what is free is known before the server starts.

    All sockets are held until all are bound, so that no port is chosen twice. They have to be
    closed before the server binds them; should another process be quicker, the server says so
    and the caller chooses again (:attr:`toolkit.spec.models.Ports` 0) or reports it.

    Raises:
        ServerError: a port is taken, or ``host`` is not an address of this machine.
    """
    wanted = {name: getattr(ports, name) for name in _NAMES}
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as held:
        chosen: dict[str, int] = {}
        # Fixed ports first: a free one must not take the number that another field asks for.
        for name in sorted(_NAMES, key=lambda each: wanted[each] == 0):
            bound = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            chosen[name] = _bind(bound, host, wanted[name], f"serving.ports.{name}")
    return Endpoints(host, **chosen)


def choose_one(host: str, port: int, field: str) -> int:
    """A single port, as :func:`choose` does; ``field`` of the deployment file asks for it.

    Raises:
        ServerError: it is taken, or ``host`` is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _bind(bound, host, port, field)


def _bind(bound: socket.socket, host: str, port: int, field: str) -> int:
    host_field = f"{field.split('.')[0]}.host"
    try:
        bound.bind((host, port))
        bound.listen(1)  # under SO_REUSEADDR only listening proves that nobody else does
    except socket.gaierror as error:
        raise ServerError(
            f"{host!r} cannot be resolved: {error.strerror}",
            where=host_field,
            hint="use an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        ) from error
    except PermissionError as error:
        raise ServerError(
            f"port {port} may not be used: {error.strerror}",
            where=field,
            hint="ports below 1024 need root; choose a higher one",
        ) from error
    except OSError as error:
        raise _taken(host, port, field, error) from error
    return int(bound.getsockname()[1])


def _taken(host: str, port: int, field: str, error: OSError) -> ServerError:
    import errno

    if error.errno != errno.EADDRINUSE:
        return ServerError(
            f"cannot listen on {host}: {error.strerror}",
            where=f"{field.split('.')[0]}.host",
            hint="use an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        )
    holder = procfs.listener(port)
    supervised = _supervised(holder.pid) if holder else None
    by = f" by {holder}" if holder else ""
    if supervised:
        by = f" by the deployment {supervised[1]}, {holder}"
    return ServerError(
        f"port {port} is already in use{by}",
        where=field,
        hint=f"{_stopping(supervised)}, or choose another port: --set {field}=0 takes any free one",
    )


def _supervised(pid: int) -> tuple[str, str] | None:
    """Workspace and name of the deployment that process ``pid`` belongs to."""
    for words in procfs.ancestors(pid):
        if DAEMON in words[:-2]:
            at = words.index(DAEMON)
            return words[at + 1], words[at + 2]
    return None


def _stopping(supervised: tuple[str, str] | None) -> str:
    """How to end what listens: a process that its supervisor restarts is not to be killed."""
    if supervised is None:
        return "stop that process"
    root, name = supervised
    return f"toolkit stop {name}{root_option(Path(root))}"
