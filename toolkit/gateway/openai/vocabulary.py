"""A checkpoint's tokenizer: text to tokens, and what each token stands for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import SpecError

# One prompt at a time is encoded; a thread pool inside the library would only take cores from
# the event loop and from an engine on the same machine.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_START = "\u2581"


class Vocabulary:
    """A Hugging Face ``tokenizer.json``.

    Args:
        folder: Holds ``tokenizer.json``.

    Raises:
        SpecError: it does not, or the file is not one.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise SpecError(f"no usable tokenizer: {error}", where=str(path)) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        kinds = {each["type"] for each in _flatten(description.get("decoder"))}
        to_bytes = _byte_level_bytes if "ByteLevel" in kinds else _marked_bytes
        ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self.size = max(ids.values()) + 1
        self._bytes = [b""] * self.size
        for token, index in ids.items():
            self._bytes[index] = to_bytes(token)
        self.special = {
            each["content"]: int(each["id"])
            for each in description.get("added_tokens", ())
            if each["special"]
        }
        self.special_ids = frozenset(self.special.values())
        self.longest_token_bytes = max(map(len, self._bytes))

    def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """Token ids of ``text``, with the model's own start tokens if ``special``."""
        # The batch calls let go of the interpreter lock while they work, the single one not.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        return tuple(encoding.ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``, special ones included."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        """What ``token`` stands for; nothing for an id without a token."""
        return self._bytes[token] if 0 <= token < self.size else b""


def special_tokens(folder: Path) -> dict[str, str]:
    """``bos_token``, ``eos_token`` and the others that a chat template may name."""
    names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        content = read_json(folder / file)
        for name in (*names, "mask_token"):
            value = content.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found[name] = text
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``; empty if there is no such file.

    Raises:
        SpecError: it is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SpecError(f"not JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise SpecError("not a JSON object", where=str(path))
    return content


def _flatten(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for each in decoder["decoders"]:
            yield from _flatten(each)
    else:
        yield decoder


def _byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level BPE (GPT-2's scheme) writes for each byte."""
    printable: Iterable[int] = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if chr(byte) not in alphabet]
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
