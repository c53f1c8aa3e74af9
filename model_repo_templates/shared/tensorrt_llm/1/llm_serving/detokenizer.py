"""Token ids of one stream to text, piece by piece, never breaking a character."""

from __future__ import annotations

import codecs
from collections.abc import Container, Iterable, Sequence

from .tokenizer import TextTokenizer


class Detokenizer:
    """Keeps the bytes of an unfinished character until the rest of it has come.

    Every token stands for fixed bytes, so a step costs one table look-up a token, whatever
    the length of the text, and the pieces joined are the text decoded at once. Only for
    byte-fallback vocabularies malformed bytes may give another number of replacement
    characters than the library does, which judges a run of byte tokens as a whole.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        *,
        skip_special_tokens: bool = True,
        continues: bool = False,
    ) -> None:
        """``continues``: the text goes on after another, so its first space stays."""
        self._bytes = tokenizer.token_bytes
        self._skipped = tokenizer.special_tokens if skip_special_tokens else frozenset[int]()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.strips_first_space and not continues

    def feed(self, tokens: Iterable[int], *, final: bool = False) -> str:
        """Text that is certain after ``tokens``; ``final`` gives up on unfinished characters."""
        pieces = _joined(self._bytes, tokens, self._skipped)
        if self._strip and pieces:
            self._strip = False
            pieces = pieces.removeprefix(b" ")
        return self._decoder.decode(pieces, final)


def token_text(
    tokenizer: TextTokenizer, tokens: Iterable[int], *, skip_special_tokens: bool
) -> bytes:
    """The bytes that ``tokens`` stand for, wherever in a text they are."""
    skipped = tokenizer.special_tokens if skip_special_tokens else frozenset[int]()
    return _joined(tokenizer.token_bytes, tokens, skipped)


def complete_bytes(unfinished: bytes, pieces: bytes) -> tuple[bytes, bytes]:
    """What can be shown of ``unfinished`` + ``pieces``, and the beginning of a character after it.

    ``unfinished`` that does not go on in ``pieces`` is from another text and dropped.
    """
    if pieces and not 0x80 <= pieces[0] <= 0xBF:
        unfinished = b""
    joined = unfinished + pieces
    # The first byte of a character says how many follow: at most three.
    for length in range(1, min(3, len(joined)) + 1):
        first = joined[-length]
        if first >= 0xC0:
            needed = 4 if first >= 0xF0 else 3 if first >= 0xE0 else 2
            return (joined[:-length], joined[-length:]) if length < needed else (joined, b"")
        if first < 0x80:
            break
    return joined, b""


def _joined(table: Sequence[bytes], tokens: Iterable[int], skipped: Container[int]) -> bytes:
    return b"".join(table[token] for token in tokens if token not in skipped and token < len(table))
