"""The gateway as a process: everything joined, and served until it is told to end."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import SpecError
from toolkit.gateway.addresses import distinct
from toolkit.gateway.dispatch import Dispatcher, Models
from toolkit.gateway.guard import KeyedAdmission, OpenAdmission
from toolkit.gateway.guard.access_log import AccessLog, App
from toolkit.gateway.guard.keys import KeyRing
from toolkit.gateway.plan import GatewayPlan, ModelPlan
from toolkit.gateway.scheduling import Scheduler
from toolkit.gateway.telemetry.metrics import GatewayMetrics
from toolkit.gateway.telemetry.observer import Observer, Observers
from toolkit.gateway.telemetry.traces import Traces, exporting_to
from toolkit.gateway.triton import Capacity, TritonReplica

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from toolkit.gateway.openai.served import ServedModel
    from toolkit.gateway.openai.settings import ApiSettings

_TELLING_S = 3.0
"""After the drain's deadline, for the errors to reach the clients; a supervisor waits longer."""


class Gateway:
    """All parts of one gateway.

    Raises:
        SpecError: a tokenizer or the key file cannot be read.
        EnvironmentError_: traces are asked for and OpenTelemetry is not installed.
    """

    def __init__(self, plan: GatewayPlan) -> None:
        self.plan = plan
        self._metrics = GatewayMetrics(
            {each.name: each.scheduling.classes for each in plan.models},
            lambda: {name: one.snapshot() for name, one in self.models.dispatchers.items()},
            cost_per_hour=plan.gateway.cost_per_hour,
        )
        url = plan.gateway.traces
        self._traces = Traces(exporting_to(url)) if url else None
        observer = Observers([self._metrics, *([self._traces] if self._traces else [])])
        self.models = Models({each.name: _dispatcher(each, observer) for each in plan.models})

    def app(self) -> App:
        """The ASGI application."""
        from starlette.routing import Route

        from toolkit.gateway.openai.app import create_app

        gateway = self.plan.gateway
        keys = gateway.keys
        app = create_app(
            _served(self.plan),
            self.models,
            admission=KeyedAdmission(KeyRing(Path(keys))) if keys else OpenAdmission(),
            settings=_settings(self.plan),
            ready=lambda: self.models.ready,
            routes=[Route("/metrics", self._render)],
            lifespan=self._lifespan,
        )
        return AccessLog(app, _stdout()) if gateway.access_log else app

    async def _render(self, request: Request) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST
        from starlette.responses import Response

        return Response(self._metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self.models.start()
        yield
        await self.models.drain(0)
        await self.models.close()
        if self._traces:
            self._traces.close()


def run(plan: GatewayPlan, port: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests under way have the drain timeout to end.

    Args:
        plan: What to serve.
        port: Instead of the plan's.

    Raises:
        SpecError: a file that the plan names cannot be read.
    """
    import uvicorn

    from toolkit.gateway.openai.protocol import GatewayProtocol

    gateway, served = plan.gateway, Gateway(plan)
    app = served.app()
    tls = gateway.tls
    config = uvicorn.Config(
        app,
        host=gateway.host,
        port=gateway.port if port is None else port,
        loop="uvloop",
        http=GatewayProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=4096,
        timeout_graceful_shutdown=math.ceil(gateway.drain_timeout + _TELLING_S),
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    try:
        config.load()
    except OSError as error:
        raise SpecError(
            f"the certificate or its key cannot be read: {error}", where="gateway.tls"
        ) from error
    # uvicorn drains at these, and then raises them again: by then there is nothing left to end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    _server(config, lambda: served.models.drain(gateway.drain_timeout)).run()


def _server(config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> uvicorn.Server:
    """A server that runs ``drain`` from the moment on at which it is told to end.

    Of uvicorn's own deadline the requests are not told: their connections just break off.
    """
    import uvicorn

    class Draining(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            ending = asyncio.ensure_future(drain())
            try:
                await super().shutdown(sockets)
            finally:
                ending.cancel()

    return Draining(config)


def _dispatcher(model: ModelPlan, observer: Observer) -> Dispatcher:
    dispatcher = Dispatcher(Scheduler.of(model.scheduling), observer=observer)
    assumed = Capacity(model.slots, 0)  # a KV cache that nobody tells of is not counted
    for address in distinct(model.addresses):
        dispatcher.add(TritonReplica(address.grpc, address.metrics, model.name), assumed)
    return dispatcher


def _served(plan: GatewayPlan) -> dict[str, ServedModel]:
    from toolkit.gateway.openai.served import ServedModel

    served: dict[str, ServedModel] = {}
    for model in plan.models:
        names = {model.name: None, **{name: name for name in model.adapters}}
        for name, adapter in names.items():
            if name in served:
                raise SpecError(f"two models or adapters are called {name}", where="name")
            served[name] = ServedModel.load(
                model.tokenizer,
                name=name,
                max_input_len=model.max_input_len,
                max_seq_len=model.max_seq_len,
                classes=tuple(model.scheduling.classes),
                guided=model.guided,
                deployment=model.name,
                adapter=adapter,
            )
    return served


def _settings(plan: GatewayPlan) -> ApiSettings:
    from toolkit.gateway.openai.settings import ApiSettings

    gateway = plan.gateway
    return ApiSettings(
        max_body=gateway.max_body,
        max_buffer=gateway.max_buffer,
        stall_timeout=gateway.stall_timeout,
    )


def _stdout() -> Callable[[bytes], object]:
    # One write a line, past the buffer: lines do not mix, and none is lost with the process.
    descriptor = sys.stdout.fileno()
    return lambda line: os.write(descriptor, line)
