"""Read request traces: who asked when, how much, and which prompts began alike.

Two formats, told by the first line:

- ``mooncake``: a JSON object a line with ``timestamp`` (milliseconds), ``input_length`` and
  ``output_length`` (tokens), and ``hash_ids``, one for each block of the prompt: two prompts
  that begin with the same ids begin with the same text
  (https://github.com/kvcache-ai/Mooncake, FAST25-release: blocks of 512 tokens).
- ``azure``: CSV with the columns ``TIMESTAMP`` (a time of day with up to nine decimals),
  ``ContextTokens`` and ``GeneratedTokens`` (https://github.com/Azure/AzurePublicDataset,
  AzureLLMInferenceDataset2023.md and 2024.md). It does not tell what prompts share.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from toolkit.errors import SpecError

Format = Literal["mooncake", "azure"]
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOONCAKE = frozenset({"timestamp", "input_length", "output_length", "hash_ids"})
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?"
)
_MOST_TOKENS = 10_000_000
_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request; ``at`` is in seconds from the first one's."""

    at: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trace:
    """A file's requests in order of time.

    ``more``: the file goes on after what was read. ``empty`` lines asked for no token or had
    none, and are left out. ``ignored`` names what the file says beside, which is not replayed.
    """

    format: Format
    arrivals: tuple[Arrival, ...]
    more: bool = False
    empty: int = 0
    ignored: tuple[str, ...] = ()


_Parsed = tuple[int, Arrival]
"""Nanoseconds on the file's own clock, and the request, whose ``at`` is not known yet."""


def read_trace(
    path: Path, form: Format | None = None, *, block_tokens: int = 512, limit: int = 100_000
) -> Trace:
    """The first ``limit`` requests of a trace (``.gz`` is unpacked).

    Args:
        path: The file.
        form: Its format; None: as its first line says.
        block_tokens: Tokens that one of ``hash_ids`` stands for.
        limit: Lines to read; public traces have up to 27 million.

    Raises:
        SpecError: no such file, no trace, or a line that is wrong, with its number.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            return _read(file, path, form, block_tokens, limit)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise SpecError(f"cannot be read: {error}", where=str(path)) from error


def _read(file: TextIO, path: Path, form: Format | None, block_tokens: int, limit: int) -> Trace:
    first = file.readline()
    found = form or _format(first, path)
    lines = enumerate(file, 2) if found == "azure" else _again(first, file)
    ignored: dict[str, None] = {}
    parse = (
        _azure_parser(first, path, ignored)
        if found == "azure"
        else _mooncake_parser(path, block_tokens, ignored)
    )
    filled = ((number, line) for number, line in lines if line.strip())
    parsed = [parse(line, number) for number, line in islice(filled, limit)]
    kept = [one for one in parsed if one[1].prompt_tokens and one[1].output_tokens]
    if not kept:
        raise SpecError("holds no request", where=str(path))
    kept.sort(key=lambda one: one[0])
    more, start = next(filled, None) is not None, kept[0][0]
    arrivals = tuple(
        Arrival((when - start) / 1e9, one.prompt_tokens, one.output_tokens, one.blocks)
        for when, one in kept
    )
    return Trace(found, arrivals, more, len(parsed) - len(kept), tuple(ignored))


def _again(first: str, file: TextIO) -> Iterator[tuple[int, str]]:
    yield 1, first
    yield from enumerate(file, 2)


def _format(first: str, path: Path) -> Format:
    if first.lstrip().startswith("{"):
        return "mooncake"
    if set(_AZURE) <= set(_cells(first, f"{path}:1")):
        return "azure"
    raise SpecError(
        "neither a Mooncake trace (JSON lines) nor an Azure one "
        f"(CSV with the columns {', '.join(_AZURE)})",
        where=f"{path}:1",
        hint="prompts with texts are a workload of type file",
    )


def _mooncake_parser(
    path: Path, block_tokens: int, ignored: dict[str, None]
) -> Callable[[str, int], _Parsed]:
    def parse(line: str, number: int) -> _Parsed:
        where = f"{path}:{number}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"not JSON: {error}", where=where) from error
        if not isinstance(found, dict):
            raise SpecError("a line has to be a JSON object", where=where)
        ignored.update(dict.fromkeys(found.keys() - _MOONCAKE))
        tokens = _tokens(found.get("input_length"), "input_length", where)
        blocks = _blocks(found.get("hash_ids", []), tokens, block_tokens, where)
        output = _tokens(found.get("output_length"), "output_length", where)
        return _milliseconds(found.get("timestamp"), where), Arrival(0.0, tokens, output, blocks)

    return parse


def _milliseconds(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        raise SpecError(
            f"timestamp has to be a number of milliseconds, not {value!r}",
            where=where,
            hint="every line needs one: requests that wait for another's answer are not replayed",
        )
    return round(value * 1_000_000)


def _blocks(value: Any, tokens: int, block_tokens: int, where: str) -> tuple[int, ...]:
    """Every block has an id, or every full one."""
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        raise SpecError("hash_ids has to be a list of whole numbers", where=where)
    if value and not tokens // block_tokens <= len(value) <= -(-tokens // block_tokens):
        raise SpecError(
            f"{len(value)} hash_ids do not go with {tokens} tokens in blocks of {block_tokens}",
            where=where,
            hint=f"set block_tokens: they were made with about {_block(tokens, len(value))}",
        )
    return tuple(value)


def _block(tokens: int, blocks: int) -> int:
    """The least power of two that needs no more blocks."""
    size = 1
    while -(-tokens // size) > blocks:
        size *= 2
    return size


def _azure_parser(
    header: str, path: Path, ignored: dict[str, None]
) -> Callable[[str, int], _Parsed]:
    names = _cells(header, f"{path}:1")
    if missing := [name for name in _AZURE if name not in names]:
        raise SpecError(
            f"the column {missing[0]} is missing",
            where=f"{path}:1",
            hint=f"the first line names the columns; needed: {', '.join(_AZURE)}",
        )
    time, prompt, output = (names.index(name) for name in _AZURE)
    ignored.update(dict.fromkeys(name for name in names if name not in _AZURE))

    def parse(line: str, number: int) -> _Parsed:
        where = f"{path}:{number}"
        cells = _cells(line, where)
        if len(cells) != len(names):
            raise SpecError(f"{len(cells)} columns instead of {len(names)}", where=where)
        asked, given = (
            _tokens(int(text) if text.isdecimal() and len(text) < _DIGITS else text, name, where)
            for name, text in zip(_AZURE[1:], (cells[prompt], cells[output]), strict=True)
        )
        return _nanoseconds(cells[time], where), Arrival(0.0, asked, given)

    return parse


def _nanoseconds(text: str, where: str) -> int:
    found = _TIME.fullmatch(text)
    if not found:
        raise _no_time(text, where)
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    try:
        day_time = datetime(year, month, day, hour, minute, second, tzinfo=_zone(found[8]))
    except ValueError as error:
        raise _no_time(text, where) from error
    return round(day_time.timestamp()) * 1_000_000_000 + int((found[7] or "").ljust(9, "0"))


def _no_time(text: str, where: str) -> SpecError:
    return SpecError(f"not a time: {text!r}", where=where, hint="like 2023-11-16 18:17:03.9799600")


def _zone(text: str | None) -> timezone:
    if text in (None, "Z"):
        return timezone.utc
    assert text
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-offset if text[0] == "-" else offset)


def _cells(line: str, where: str) -> Sequence[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]), [])]
    except csv.Error as error:
        raise SpecError(f"not CSV: {error}", where=where) from error


def _tokens(value: Any, name: str, where: str) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_TOKENS:
        raise SpecError(f"{name} has to be a number of tokens, not {value!r:.40}", where=where)
    return value
