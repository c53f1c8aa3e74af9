"""From an answer's pieces to what the client is told of them: text, or calls of tools."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.gateway.openai.responses import FinishReason
from toolkit.gateway.openai.tools.choice import ToolUse
from toolkit.gateway.openai.tools.events import Event, Text
from toolkit.gateway.openai.tools.special import SpecialFilter
from toolkit.gateway.work import Final, Piece


class AnswerReader:
    """Reads one answer."""

    def __init__(self, tools: ToolUse) -> None:
        self._filter = SpecialFilter(tools.special) if tools.special else None
        self._parser = tools.parser() if tools.parser else None
        self._forced = tools.forced

    def read(self, piece: Piece) -> list[Event]:
        """What ``piece`` brings."""
        final, text = isinstance(piece, Final), piece.text
        if self._filter is not None:
            text = self._filter.feed(text, final=final)
        if self._parser is None:
            return [Text(text)] if text else []
        events = self._parser.feed(text)
        return events + self._parser.finish() if final else events

    def finish_reason(self, final: Final) -> FinishReason:
        """Why it ended: an answer that stopped with calls wants them answered."""
        called = self._parser is not None and self._parser.calls and not self._forced
        if called and final.finish_reason == "stop":
            return "tool_calls"
        return plain_reason(final)


def plain_reason(final: Final) -> FinishReason:
    """OpenAI's API knows no deadline: an answer that it cut is one of too little length."""
    return "stop" if final.finish_reason == "stop" else "length"


def merged(pieces: Sequence[Piece]) -> Piece:
    """Pieces that follow each other as one."""
    if len(pieces) == 1:
        return pieces[0]
    text = "".join([piece.text for piece in pieces])
    ids = tuple([token for piece in pieces for token in piece.token_ids])
    log_probs = tuple([value for piece in pieces for value in piece.log_probs])
    last = pieces[-1]
    if not isinstance(last, Final):
        return Piece(text, ids, log_probs)
    return Final(text, ids, log_probs, last.finish_reason, last.stop_reason, last.usage)
