"""Text for calibration and for the accuracy gate: from where it comes to batches of token ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from toolkit.errors import EnvironmentError_, SpecError
from toolkit.spec.models import Calibration

Messages: TypeAlias = tuple[tuple[str, str], ...]
"""A conversation: ``(role, content)`` of each turn."""

BUILTIN = "builtin"


@dataclass(frozen=True)
class Sample:
    """One text; ``messages`` instead of ``text`` where it is a conversation."""

    text: str = ""
    messages: Messages = ()


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    chat_template: Any

    def __call__(self, text: str, **kwargs: Any) -> Any: ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...


def load_samples(spec: Calibration) -> tuple[Sample, ...]:
    """The first ``spec.samples`` texts of the source.

    ``builtin`` ships with the package. A ``.jsonl`` file has one object a line with ``text`` or
    with ``messages`` (each with ``role`` and ``content``); a ``.txt`` file has paragraphs
    separated by blank lines. Anything else is a data set's name for ModelOpt, which downloads it.

    Raises:
        SpecError: a file is missing, empty or malformed.
        EnvironmentError_: a named data set cannot be obtained here.
    """
    found = tuple(islice(_samples(spec), spec.samples))
    if not found:
        raise SpecError("the calibration text is empty", where=spec.source)
    return found


def _samples(spec: Calibration) -> Iterator[Sample]:
    source = spec.source
    if source == BUILTIN:
        return iter(_builtin("calibration.jsonl"))
    if source.endswith(".jsonl"):
        return _from_jsonl(_lines(Path(source)), source)
    if source.endswith(".txt"):
        return _from_text(_lines(Path(source)))
    return iter(_named(source, spec.samples))


def heldout_samples() -> tuple[Sample, ...]:
    """The text that the accuracy gate reads; shares nothing with the calibration text."""
    return _builtin("heldout.jsonl")


def encode(
    samples: Iterable[Sample], tokenizer: Tokenizer, max_length: int
) -> tuple[tuple[int, ...], ...]:
    """Token ids of each sample, at most ``max_length`` of them; conversations go through the
    model's chat template. Samples of fewer than two tokens are left out."""
    encoded = []
    for sample in samples:
        ids = tuple(_ids(sample, tokenizer))[:max_length]
        if len(ids) > 1:
            encoded.append(ids)
    return tuple(encoded)


def packed(documents: Sequence[tuple[int, ...]], length: int) -> tuple[tuple[int, ...], ...]:
    """The documents one after the other, cut into rows of ``length`` tokens; the last is shorter.

    Without padding no activation of a padding token enters the measured ranges.
    """
    stream = [token for document in documents for token in document]
    rows = [tuple(stream[start : start + length]) for start in range(0, len(stream), length)]
    return tuple(row for row in rows if len(row) > 1)


def batches(rows: Sequence[tuple[int, ...]], size: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Rows of equal length together, at most ``size`` at a time, in a fixed order."""
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for row in rows:
        by_length.setdefault(len(row), []).append(row)
    return tuple(
        tuple(group[start : start + size])
        for group in by_length.values()
        for start in range(0, len(group), size)
    )


def _ids(sample: Sample, tokenizer: Tokenizer) -> Sequence[int]:
    if not sample.messages:
        return list(tokenizer(sample.text)["input_ids"])
    if tokenizer.chat_template is None:
        return list(tokenizer("\n".join(content for _, content in sample.messages))["input_ids"])
    turns = [{"role": role, "content": content} for role, content in sample.messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _builtin(name: str) -> tuple[Sample, ...]:
    text = files("toolkit.quantize").joinpath("data", name).read_text(encoding="utf-8")
    return tuple(_from_jsonl(text.split("\n"), name))


def _lines(path: Path) -> Iterator[str]:
    """Lines without their ends, one by one: of a large file no more is read than is wanted.

    Only a line feed ends a line; texts hold U+2028 and the like, and so may JSON.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                encoding = "utf-8-sig" if number == 1 else "utf-8"
                yield _decoded(line, encoding, f"{path}:{number}")
    except OSError as error:
        raise SpecError(
            f"the calibration file cannot be read: {error.strerror}",
            where=str(path),
            hint="quantization.calibration.source is a file, builtin or the name of a data set",
        ) from None


def _decoded(line: bytes, encoding: str, where: str) -> str:
    try:
        return line.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SpecError(
            f"the calibration file is not UTF-8: byte 0x{line[error.start]:02x}", where=where
        ) from None


def _from_jsonl(lines: Iterable[str], where: str) -> Iterator[Sample]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _record(line, f"{where}:{number}")


def _record(line: str, where: str) -> Sample:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise SpecError(f"not JSON: {error.msg}", where=f"{where}:{error.colno}") from None
    if isinstance(record, dict):
        if isinstance(record.get("text"), str):
            return Sample(text=record["text"])
        turns = record.get("messages")
        if isinstance(turns, list) and turns and all(map(_is_turn, turns)):
            return Sample(messages=tuple((turn["role"], turn["content"]) for turn in turns))
    raise SpecError(
        "neither a text nor messages",
        where=where,
        hint='a line is {"text": "…"} or {"messages": [{"role": "user", "content": "…"}, …]}',
    )


def _is_turn(turn: object) -> bool:
    return isinstance(turn, dict) and all(isinstance(turn.get(k), str) for k in ("role", "content"))


def _from_text(lines: Iterable[str]) -> Iterator[Sample]:
    paragraph: list[str] = []
    for line in chain(lines, [""]):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield Sample(text="\n".join(paragraph) + "\n")
            paragraph = []


def _named(source: str, count: int) -> tuple[Sample, ...]:
    try:
        from modelopt.torch.utils.dataset_utils import get_dataset_samples

        texts = get_dataset_samples(source, count)
    except Exception as error:
        # ModelOpt, datasets and the hub raise anything from ImportError to HTTP errors here.
        raise EnvironmentError_(
            f"the data set {source!r} cannot be obtained: {_first_line(error)}",
            where="quantization.calibration.source",
            hint="named data sets need the package `datasets` and a connection to the hub; "
            "use builtin, or a .jsonl or .txt file",
        ) from error
    return tuple(Sample(text=text) for text in texts if text.strip())


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
