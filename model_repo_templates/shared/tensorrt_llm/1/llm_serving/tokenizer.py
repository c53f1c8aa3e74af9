"""From text to token ids, and from token ids to the bytes each one stands for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# One prompt at a time is encoded; a thread pool inside the library would only compete with
# the engine for cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_START = "\u2581"
_DECODERS = frozenset(
    {"ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace", "Sequence"}
)


class TextTokenizer:
    """A Hugging Face ``tokenizer.json`` with the end tokens of ``generation_config.json``."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        decoders = list(_flatten(description.get("decoder")))
        self.end_tokens = _end_tokens(folder)
        self.strips_first_space = any(
            (each["type"] == "Strip" and each.get("start"))
            or (each["type"] == "Metaspace" and each.get("prepend_scheme", "always") != "never")
            for each in decoders
        )
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary_size = max(vocabulary.values()) + 1
        kinds = {each["type"] for each in decoders}
        self.token_bytes: list[bytes] = [b""] * self.vocabulary_size
        to_bytes = _byte_level_bytes if "ByteLevel" in kinds else _marked_bytes
        for token, index in vocabulary.items():
            self.token_bytes[index] = to_bytes(token)
        self.special_tokens = frozenset(
            each["id"] for each in description.get("added_tokens", ()) if each["special"]
        )
        self.longest_token_bytes = max(map(len, self.token_bytes))

    def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """Token ids of ``text``, with the model's own start tokens if ``special``."""
        # The batch call lets go of the interpreter lock while it works, the single one not.
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=special)
        return tuple(encoding.ids)

    def word_tokens(self, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Token sequences of each word, at the start of a text and after a space."""
        sequences = dict.fromkeys(
            self.encode(text, special=False) for word in words for text in (word, f" {word}")
        )
        return tuple(sequence for sequence in sequences if sequence)


def _flatten(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    kind = decoder["type"] if decoder else None
    if decoder is None or kind not in _DECODERS:
        raise ValueError(f"tokenizer.json: decoder {kind} is not supported")
    if kind == "Sequence":
        for each in decoder["decoders"]:
            yield from _flatten(each)
    else:
        yield decoder


def _end_tokens(folder: Path) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            end = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            if end is not None:
                return tuple(end) if isinstance(end, list) else (int(end),)
    return ()


def _byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level BPE (GPT-2's scheme) writes for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + place): byte for place, byte in enumerate(others)})
    return alphabet


_ALPHABET = _byte_alphabet()


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes([_ALPHABET[character] for character in token])
    except KeyError:  # an added token, written as it is
        return token.encode()


def _marked_bytes(token: str) -> bytes:
    match = _BYTE_TOKEN.fullmatch(token)
    if match:
        return bytes([int(match[1], 16)])
    return token.replace(_WORD_START, " ").encode()
