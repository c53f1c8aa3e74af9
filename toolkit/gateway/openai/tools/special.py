"""Where a call's marker is a special token, all of those come as text; these take them out."""

from __future__ import annotations

import re
from collections.abc import Iterable


class SpecialTokens:
    """The texts to take out, compiled once for a model."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(sorted({text for text in texts if text}, key=len, reverse=True))
        self.pattern = re.compile("|".join(map(re.escape, self.texts))) if self.texts else None
        self.longest = len(self.texts[0]) if self.texts else 0
        self.firsts = frozenset(text[0] for text in self.texts)


class SpecialFilter:
    """Takes them out of one answer, while it comes."""

    def __init__(self, special: SpecialTokens) -> None:
        self._special = special
        self._held = ""

    def feed(self, text: str, *, final: bool = False) -> str:
        """``text`` without them; the beginning of one is held back."""
        special = self._special
        if special.pattern is None:
            return text
        text = special.pattern.sub("", self._held + text)
        keep = 0 if final else self._undecided(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _undecided(self, text: str) -> int:
        for at in range(max(0, len(text) - self._special.longest + 1), len(text)):
            if text[at] in self._special.firsts:
                tail = text[at:]
                if any(each.startswith(tail) for each in self._special.texts):
                    return len(tail)
        return 0
