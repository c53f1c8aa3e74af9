"""Streamed answers as server-sent events, serialised in advance but for what is new in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import orjson

from toolkit.gateway.openai.job import Job
from toolkit.gateway.openai.logprobs import TokenTexts
from toolkit.gateway.openai.reading import AnswerReader, plain_reason
from toolkit.gateway.openai.responses import FinishReason
from toolkit.gateway.openai.tools.events import CallArguments, CallStart, Event, Text
from toolkit.gateway.work import Final, Piece

DONE = b"data: [DONE]\n\n"
_NO_LOG_PROBS = b"null"
_END = b"}]}\n\n"


class Frames(Protocol):
    """Writes the events of one request's sequences."""

    def frame(self, index: int, piece: Piece) -> bytes:
        """The events that tell of ``piece``, a part of the sequence ``index``."""

    def tail(self, finals: Sequence[Final | None]) -> bytes:
        """What follows the last event of the last sequence."""


def error_event(body: bytes) -> bytes:
    """An error where an answer has begun already."""
    return b"data: " + body + b"\n\n"


class _Head:
    """What every event of a request begins with."""

    def __init__(self, job: Job, kind: str) -> None:
        head = {"id": job.id, "object": kind, "created": job.created, "model": job.model.name}
        if job.service_tier is not None:
            head["service_tier"] = job.service_tier
        common = b"data: " + orjson.dumps(head)[:-1]
        usage = b',"usage":null' if job.with_usage else b""
        self._usage = common + b',"choices":[],"usage":'
        self.choices = [
            common + usage + b',"choices":[{"index":%d,' % index for index in range(len(job.works))
        ]
        self._job = job

    def tail(self, finals: Sequence[Final | None]) -> bytes:
        if not self._job.with_usage:
            return DONE
        usage = self._job.usage(finals).model_dump_json().encode()
        return self._usage + usage + b"}\n\n" + DONE


def _ending(reason: FinishReason, final: Final) -> bytes:
    ending = b'"' + reason.encode() + b'"'
    if final.stop_reason is not None:
        ending += b',"stop_reason":' + orjson.dumps(final.stop_reason)
    if final.finish_reason == "deadline":
        ending += b',"cut_by":"deadline"'
    return ending


def _token_texts(job: Job) -> list[TokenTexts]:
    """One for each sequence, where log probabilities are wanted."""
    return [TokenTexts(job.model.vocabulary) for _ in job.works] if job.log_probs else []


class TextFrames:
    """Events of ``/v1/completions``."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._head = _Head(job, "text_completion")
        self.tail = self._head.tail
        self._prefixes = [head + b'"text":' for head in self._head.choices]
        self._silent = [job.echo] * len(job.works)
        self._tokens = _token_texts(job)

    def frame(self, index: int, piece: Piece) -> bytes:
        """See :class:`Frames`."""
        text = piece.text
        if self._silent[index]:
            self._silent[index] = False
            text = self._job.prompt_of(index).text + text
        frame = b""
        if text or piece.log_probs:
            frame = self._event(index, text, piece, b"null")
        if isinstance(piece, Final):
            frame += self._event(index, "", None, _ending(plain_reason(piece), piece))
        return frame

    def _event(self, index: int, text: str, piece: Piece | None, reason: bytes) -> bytes:
        log_probs = _NO_LOG_PROBS
        if piece is not None and self._job.log_probs:
            log_probs = self._tokens[index].text(piece).model_dump_json().encode()
        return b"".join(
            (
                self._prefixes[index],
                orjson.dumps(text),
                b',"logprobs":',
                log_probs,
                b',"finish_reason":',
                reason,
                _END,
            )
        )


_CONTENT_END = b'},"logprobs":null,"finish_reason":null}]}\n\n'


class ChatFrames:
    """Events of ``/v1/chat/completions``."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._head = _Head(job, "chat.completion.chunk")
        self.tail = self._head.tail
        self._prefixes = [head + b'"delta":{"content":' for head in self._head.choices]
        self._silent = [True] * len(job.works)
        self._readers = [AnswerReader(job.tools) for _ in job.works]
        self._plain = job.tools.parser is None and job.tools.special is None and not job.log_probs
        self._tokens = _token_texts(job)

    def frame(self, index: int, piece: Piece) -> bytes:
        """See :class:`Frames`."""
        begin = b""
        if self._silent[index]:
            self._silent[index] = False
            begin = self._event(index, b'{"role":"assistant","content":""}')
        if not self._plain:
            return begin + self._read(index, piece)
        if piece.text:
            begin += self._prefixes[index] + orjson.dumps(piece.text) + _CONTENT_END
        if isinstance(piece, Final):
            begin += self._last(index, piece)
        return begin

    def _read(self, index: int, piece: Piece) -> bytes:
        frames = []
        log_probs = self._take_log_probs(index, piece)
        for event in self._readers[index].read(piece):
            frames.append(self._event(index, _delta(event), log_probs))
            log_probs = _NO_LOG_PROBS
        if isinstance(piece, Final):
            frames.append(self._last(index, piece, log_probs))
        elif log_probs is not _NO_LOG_PROBS:
            frames.append(self._event(index, b"{}", log_probs))
        return b"".join(frames)

    def _take_log_probs(self, index: int, piece: Piece) -> bytes:
        if not self._job.log_probs or not piece.log_probs:
            return _NO_LOG_PROBS
        return self._tokens[index].chat(piece).model_dump_json().encode()

    def _last(self, index: int, final: Final, log_probs: bytes = _NO_LOG_PROBS) -> bytes:
        reason = self._readers[index].finish_reason(final)
        return self._event(index, b"{}", log_probs, _ending(reason, final))

    def _event(
        self,
        index: int,
        delta: bytes,
        log_probs: bytes = _NO_LOG_PROBS,
        reason: bytes = b"null",
    ) -> bytes:
        return b"".join(
            (
                self._head.choices[index],
                b'"delta":',
                delta,
                b',"logprobs":',
                log_probs,
                b',"finish_reason":',
                reason,
                _END,
            )
        )


def _delta(event: Event) -> bytes:
    if isinstance(event, Text):
        return b'{"content":' + orjson.dumps(event.text) + b"}"
    call: dict[str, object] = {"index": event.index}
    if isinstance(event, CallStart):
        call |= {"id": event.id, "type": "function"}
        call["function"] = {"name": event.name, "arguments": ""}
    elif isinstance(event, CallArguments):
        call["function"] = {"arguments": event.text}
    return orjson.dumps({"tool_calls": [call]})
