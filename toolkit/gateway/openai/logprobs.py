"""Log probabilities of the chosen tokens, in the two forms of OpenAI's API."""

from __future__ import annotations

import codecs

from toolkit.gateway.openai.responses import ChatLogprobs, TextLogprobs, TokenLogprob
from toolkit.gateway.openai.vocabulary import Vocabulary
from toolkit.gateway.work import Piece


class TokenTexts:
    """Tokens of one answer as texts, with the place of each.

    Special tokens are left out: they are not part of the text.
    """

    def __init__(self, vocabulary: Vocabulary, offset: int = 0) -> None:
        self._vocabulary = vocabulary
        self._skipped = vocabulary.special_ids
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = offset

    def chat(self, piece: Piece) -> ChatLogprobs:
        """Of the tokens of ``piece``, as chat completions have it."""
        tokens = []
        for token, log_prob in self._of(piece):
            data = self._vocabulary.token_bytes(token)
            text = data.decode(errors="replace")
            tokens.append(TokenLogprob(token=text, bytes=list(data), logprob=log_prob))
        return ChatLogprobs(content=tokens)

    def text(self, piece: Piece) -> TextLogprobs:
        """Of the tokens of ``piece``, as completions have it.

        An offset counts the characters that are complete before the token.
        """
        tokens, log_probs, offsets = [], [], []
        for token, log_prob in self._of(piece):
            data = self._vocabulary.token_bytes(token)
            offsets.append(self._offset)
            tokens.append(data.decode(errors="replace"))
            log_probs.append(log_prob)
            self._offset += len(self._decoder.decode(data))
        return TextLogprobs(tokens=tokens, token_logprobs=log_probs, text_offset=offsets)

    def _of(self, piece: Piece) -> list[tuple[int, float]]:
        pairs = zip(piece.token_ids, piece.log_probs, strict=False)
        return [(token, log_prob) for token, log_prob in pairs if token not in self._skipped]
