"""The application: paths, and what answers there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from toolkit import __version__
from toolkit.gateway.guard.admission import Admission, OpenAdmission
from toolkit.gateway.openai.chat import ChatEndpoint
from toolkit.gateway.openai.completions import CompletionEndpoint
from toolkit.gateway.openai.errors import error_body, error_headers, internal_error
from toolkit.gateway.openai.exchange import Exchange, Receive, Scope, Send
from toolkit.gateway.openai.openapi import document
from toolkit.gateway.openai.responses import ModelCard, ModelList, Status
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.openai.service import Service, unknown_model
from toolkit.gateway.openai.settings import ApiSettings
from toolkit.gateway.work import GatewayError, Generator

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def create_app(
    models: Mapping[str, ServedModel],
    generator: Generator,
    *,
    admission: Admission | None = None,
    settings: ApiSettings | None = None,
    ready: Callable[[], bool] = lambda: True,
    routes: Sequence[BaseRoute] = (),
    lifespan: Lifespan | None = None,
) -> Starlette:
    """The OpenAI-compatible API as an ASGI application.

    Run it with ``http=GatewayProtocol`` under uvicorn, so that clients that take nothing can be
    let go at once.

    Args:
        models: What clients may name.
        generator: Runs what they ask for.
        admission: Who may ask for how much; everybody, if None.
        settings: Bounds of one request and one client.
        ready: Whether requests would be served now, for ``/ready``.
        routes: Further paths, such as ``/metrics``.
        lifespan: Runs around the server's life.
    """
    service = Service(models, generator, admission or OpenAdmission(), settings or ApiSettings())
    app = Starlette(
        routes=[*_routes(service, ready), *routes],
        exception_handlers={HTTPException: _http_error, Exception: _defect},
        lifespan=lifespan,
    )
    app.router.default = _Nothing(service)
    app.router.redirect_slashes = False
    return app


def _routes(service: Service, ready: Callable[[], bool]) -> list[Route]:
    plain = _Plain(service, ready, keys=not isinstance(service.admission, OpenAdmission))
    # An endpoint that is no function is ASGI to Starlette: nothing stands between it and a token.
    return [
        Route("/v1/chat/completions", ChatEndpoint(service)),
        Route("/v1/completions", CompletionEndpoint(service)),
        Route("/v1/models", _Get(service, plain.models)),
        Route("/v1/models/{model:path}", _Get(service, plain.model)),
        Route("/health", _Get(service, plain.health)),
        Route("/ready", _Get(service, plain.ready)),
        Route("/openapi.json", _Get(service, plain.openapi)),
    ]


class _Plain:
    """What is answered at once."""

    def __init__(self, service: Service, ready: Callable[[], bool], *, keys: bool) -> None:
        self._service = service
        self._ready = ready
        self._document = orjson.dumps(document(__version__, sorted(service.models), keys=keys))

    async def models(self, exchange: Exchange) -> None:
        cards = [_card(model) for model in self._shown(exchange).values()]
        await exchange.answer(ModelList(data=cards).model_dump_json().encode())

    async def model(self, exchange: Exchange) -> None:
        name = exchange.scope["path_params"]["model"]
        if name not in self._shown(exchange):
            raise unknown_model(name)
        await exchange.answer(_card(self._service.model(name)).model_dump_json().encode())

    def _shown(self, exchange: Exchange) -> Mapping[str, ServedModel]:
        """The models that the caller may use."""
        caller = self._service.admission.authenticate(exchange.headers)
        models = self._service.models
        if not caller.models:
            return models
        return {name: model for name, model in models.items() if name in caller.models}

    async def health(self, exchange: Exchange) -> None:
        await exchange.answer(Status(status="ok").model_dump_json().encode())

    async def ready(self, exchange: Exchange) -> None:
        if self._ready():
            await self.health(exchange)
        else:
            await exchange.answer(Status(status="not ready").model_dump_json().encode(), 503)

    async def openapi(self, exchange: Exchange) -> None:
        await exchange.answer(self._document)


def _card(model: ServedModel) -> ModelCard:
    return ModelCard(
        id=model.name,
        created=model.created,
        max_model_len=model.max_seq_len,
        request_classes=list(model.classes),
    )


class _Get:
    """An ASGI application for one path that is read."""

    def __init__(self, service: Service, answer: Callable[[Exchange], Awaitable[None]]) -> None:
        self._service = service
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._service.settings)
        try:
            exchange.allow("GET", "HEAD")
            await self._answer(exchange)
        except GatewayError as error:
            await exchange.refuse(error)


class _Nothing:
    """An ASGI application for every other path."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        exchange = Exchange(scope, receive, send, self._service.settings)
        await exchange.refuse(_nothing_at(scope["path"], 404))


def _nothing_at(path: str, status: int) -> GatewayError:
    return GatewayError(status, f"There is nothing for you at {path}.", code="not_found")


def _http_error(request: Request, error: Exception) -> Response:
    """What the further paths refuse."""
    assert isinstance(error, HTTPException)
    told = _nothing_at(request.url.path, error.status_code)
    return _response(told, dict(error.headers or {}))


def _defect(request: Request, error: Exception) -> Response:
    return _response(internal_error(), {})


def _response(error: GatewayError, headers: dict[str, str]) -> Response:
    headers |= {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(error_body(error), error.status, headers=headers, media_type="application/json")


__all__ = ["create_app"]
