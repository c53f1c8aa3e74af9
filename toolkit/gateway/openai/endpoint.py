"""A request that generates: from the body to the last byte of the answer."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ValidationError

from toolkit.gateway.guard.admission import Caller
from toolkit.gateway.openai.building import Asker, Plan, build_job
from toolkit.gateway.openai.classes import HEADER, request_class
from toolkit.gateway.openai.errors import internal_error, invalid, of_validation
from toolkit.gateway.openai.exchange import (
    ClientGone,
    ClientTooSlow,
    Exchange,
    Receive,
    Scope,
    Send,
)
from toolkit.gateway.openai.fields import GenerationRequest
from toolkit.gateway.openai.frames import Frames
from toolkit.gateway.openai.job import Job
from toolkit.gateway.openai.running import Run
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.openai.service import Service
from toolkit.gateway.openai.sinks import StreamSink, Tally, WholeSink
from toolkit.gateway.work import Final, GatewayError

_LOG = logging.getLogger(__name__)
RequestT = TypeVar("RequestT", bound=GenerationRequest)


class GeneratingEndpoint(ABC, Generic[RequestT]):
    """An ASGI application for one path; a kind of request says how it is planned and answered."""

    request: ClassVar[type[GenerationRequest]]

    def __init__(self, service: Service) -> None:
        self._service = service

    @abstractmethod
    async def plan(self, request: RequestT, model: ServedModel) -> Plan:
        """Everything that can be refused before anything is queued."""

    @abstractmethod
    def frames(self, job: Job) -> Frames:
        """How the answer is streamed."""

    @abstractmethod
    def whole(self, job: Job, answers: list[Final]) -> bytes:
        """The answer as one body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        exchange = Exchange(scope, receive, send, self._service.settings)
        try:
            exchange.allow("POST")
            await self._serve(exchange)
        except GatewayError as error:
            await exchange.refuse(error)
        except ClientTooSlow:
            exchange.record.outcome = "client_too_slow"
            await exchange.abort()
        except ClientGone:
            exchange.record.outcome = "client_gone"
        except Exception:
            _LOG.exception("request %s failed", exchange.request_id)
            if exchange.started:
                raise
            await exchange.refuse(internal_error())

    async def _serve(self, exchange: Exchange) -> None:
        service, record = self._service, exchange.record
        caller = service.admission.authenticate(exchange.headers)
        record.caller = caller.id
        request = self._parsed(await exchange.body())
        model = service.model(request.model)
        chosen = request_class(model, request.service_tier, exchange.headers.get(HEADER), caller)
        record.model, record.request_class = model.name, chosen
        record.stream = bool(request.stream)
        plan = await self.plan(request, model)
        asker = Asker(caller.id, chosen, exchange.headers.get("traceparent"))
        job = build_job(request, model, plan, asker, service.settings.max_choices)
        record.prompt_tokens = job.prompt_tokens
        await self._run(exchange, job, caller)

    def _parsed(self, body: bytes) -> RequestT:
        try:
            request: Any = self.request.model_validate_json(body)
        except ValidationError as error:
            raise of_validation(error, body) from None
        if request.stream_options is not None and not request.stream:
            raise invalid("stream_options", "only a stream has them")
        parsed: RequestT = request
        return parsed

    async def _run(self, exchange: Exchange, job: Job, caller: Caller) -> None:
        tally, record = Tally(job), exchange.record
        admission = self._service.admission
        with admission.admit(caller, job.model.name, job.prompt_tokens, job.max_tokens) as grant:
            try:
                if job.stream:
                    await self._stream(exchange, job, tally)
                else:
                    await self._answer(exchange, job, tally)
            finally:
                record.completion_tokens = tally.completion_tokens()
                record.cached_tokens = job.cached_tokens(tally.finals)
                # What was refused, or never began, has taken nothing.
                if any(tally.pieces):
                    grant.used(job.prompt_tokens + record.completion_tokens)

    async def _answer(self, exchange: Exchange, job: Job, tally: Tally) -> None:
        sink = WholeSink(job, tally)
        await Run(self._service.generator, exchange)(job.works, sink)
        body = self.whole(job, sink.answers())
        exchange.record.outcome = "ok"
        await exchange.answer(body)

    async def _stream(self, exchange: Exchange, job: Job, tally: Tally) -> None:
        run = Run(self._service.generator, exchange)
        sink = StreamSink(exchange, tally, self.frames(job), run.fail)
        try:
            try:
                await run(job.works, sink)
                exchange.record.outcome = "ok"
            except ClientGone:
                raise
            except Exception as error:
                # Before the first byte it is the answer's status; after it, one more event.
                if not exchange.started:
                    raise
                sink.error(self._told(error, exchange))
            await sink.drained()
        finally:
            sink.close()

    @staticmethod
    def _told(error: Exception, exchange: Exchange) -> GatewayError:
        if not isinstance(error, GatewayError):
            _LOG.error("request %s failed", exchange.request_id, exc_info=error)
            error = internal_error()
        exchange.record.outcome = error.code or error.kind
        return error
