"""Find stop words in streamed text, also where they cross chunks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """Text that may go out, and the stop word that ended it, if one did."""

    text: str
    stop_word: str | None = None


class StopWords:
    """Holds back the end of the text while it could still become a stop word."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        self._longest = max(map(len, words), default=0)
        self._held = ""

    def feed(self, text: str, *, final: bool = False) -> Found:
        """Take ``text`` in. The stop word that is complete first wins, however it is chunked."""
        if not self._words:
            return Found(text)
        text = self._held + text
        hits = [(at + len(word), at, word) for word in self._words if (at := text.find(word)) >= 0]
        if hits:
            _, at, word = min(hits)
            self._held = ""
            return Found(text[:at], word)
        keep = 0 if final else self._undecided(text)
        self._held = text[len(text) - keep :]
        return Found(text[: len(text) - keep])

    def _undecided(self, text: str) -> int:
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[len(text) - length :]
            if any(word.startswith(tail) for word in self._words):
                return length
        return 0
