"""Text of an exact length in the deployment's own tokens."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from toolkit.errors import SpecError, UnsupportedError

_TEXT = """
time year people way day man thing woman life child world school state family student
group country problem hand part place case week company system program question work
government number night point home water room mother area money story fact month lot
right study book eye job word business issue side kind head house service friend father
power hour game line end member law car city community name president team minute idea
body information back parent face others level office door health person art war history
party result change morning reason research girl guy moment air teacher force education
"""
_COMMON = tuple(_TEXT.split())
_WORD = re.compile(r"^(?:Ġ|▁)[a-z]{3,10}$")
_TRIES = 20


class Vocabulary(Protocol):
    """Makes and measures text."""

    unit: str

    def make(self, tokens: int, dice: random.Random) -> str:
        """Random words that count exactly ``tokens``."""

    def words(self, count: int, dice: random.Random) -> list[str]:
        """Random words, each one token where another stands before it."""

    def count(self, text: str, *, special: bool = True) -> int:
        """Tokens of ``text``; ``special``: with those that the tokenizer adds to a prompt."""


class Words:
    """Counts words, for want of a tokenizer: a word is about 1.0 to 1.5 tokens of most models."""

    unit = "words"

    def make(self, tokens: int, dice: random.Random) -> str:
        """``tokens`` random words."""
        return " ".join(self.words(tokens, dice))

    def words(self, count: int, dice: random.Random) -> list[str]:
        """Random common words."""
        return dice.choices(_COMMON, k=count)

    def count(self, text: str, *, special: bool = True) -> int:
        """Words of ``text``."""
        return len(text.split())


class Tokens:
    """Counts the tokens of a ``tokenizer.json``.

    Text is made of words that are one token each, so that a count comes out exactly.

    Args:
        path: ``tokenizer.json``, or a directory that holds one.

    Raises:
        SpecError: no such file, or not a tokenizer.
        UnsupportedError: its vocabulary has too few whole words.
    """

    unit = "tokens"

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._file = file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise SpecError("no such tokenizer.json", where=str(file))
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception
            raise SpecError(f"not a tokenizer: {error}", where=str(file)) from error
        # Its batch threads would compete with the server on the same machine.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._words = self._whole_words()
        if len(self._words) < 100:
            raise UnsupportedError(
                "the tokenizer has too few whole words to make text from",
                where=str(file),
                hint="use a workload of type file",
            )

    def __reduce__(self) -> tuple[type[Tokens], tuple[Path]]:
        # Another process reads the file again.
        return Tokens, (self._file,)

    def make(self, tokens: int, dice: random.Random) -> str:
        """Random words that the tokenizer counts as ``tokens``."""
        words = dice.choices(self._words, k=tokens)
        for _ in range(_TRIES):
            text = " ".join(words)
            excess = self.count(text) - tokens
            if excess == 0:
                return text
            if excess > 0:
                del words[max(1, len(words) - excess) :]
            else:
                words += dice.choices(self._words, k=-excess)
            if excess > 0 and len(words) == 1:
                words = dice.choices(self._words, k=1)
        raise UnsupportedError(f"no text of exactly {tokens} tokens found with this tokenizer")

    def words(self, count: int, dice: random.Random) -> list[str]:
        """Random whole words of the vocabulary."""
        return dice.choices(self._words, k=count)

    def count(self, text: str, *, special: bool = True) -> int:
        """Tokens of ``text``."""
        return len(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def _whole_words(self) -> Sequence[str]:
        found = sorted(piece[1:] for piece in self._tokenizer.get_vocab() if _WORD.match(piece))
        # In a vocabulary, later ids can be unreachable by merges: keep what really is one token.
        first = self.count("the")
        sample = random.Random(0).sample(found, min(len(found), 2000))
        return [word for word in sample if self.count(f"the {word}") == first + 1]
