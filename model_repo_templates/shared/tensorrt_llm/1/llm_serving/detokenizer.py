"""Token ids of one stream to text, piece by piece, never breaking a character."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from .tokenizer import TextTokenizer


class Detokenizer:
    """Keeps the bytes of an unfinished character until the rest of it has come.

    Every token stands for fixed bytes, so a step costs one table look-up a token, whatever
    the length of the text, and the pieces joined are the text decoded at once. Only for
    byte-fallback vocabularies malformed bytes may give another number of replacement
    characters than the library does, which judges a run of byte tokens as a whole.
    """

    def __init__(self, tokenizer: TextTokenizer, *, skip_special_tokens: bool = True) -> None:
        self._bytes = tokenizer.token_bytes
        self._skipped = tokenizer.special_tokens if skip_special_tokens else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_first_space

    def feed(self, tokens: Iterable[int], *, final: bool = False) -> str:
        """Text that is certain after ``tokens``; ``final`` gives up on unfinished characters."""
        pieces = b"".join(
            self._bytes[token]
            for token in tokens
            if token not in self._skipped and token < len(self._bytes)
        )
        if self._strip and pieces:
            self._strip = False
            pieces = pieces.removeprefix(b" ")
        return self._decoder.decode(pieces, final)
