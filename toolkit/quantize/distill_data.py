"""What a draft learns from: text and the target's own answers, with the target's predictions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import SpecError
from toolkit.progress import Progress
from toolkit.quantize.calibration import (
    Sample,
    encode,
    heldout_samples,
    load_samples,
    packed,
)
from toolkit.spec.models import Calibration

if TYPE_CHECKING:
    import torch

ROW = 128
"""Tokens of one training row."""
ANSWER = 96
"""Tokens of one answer of the target."""
TOP = 32
"""Predictions that are kept for each position; the rest counts as one outcome."""
_PROMPT_TOKENS = 48
_ANSWER_BATCH = 32
_PROMPTS = 96
_HELDOUT_PROMPTS = 32
_ASKING = (
    "Continue this text:\n\n{}",
    "Summarize this text in one sentence:\n\n{}",
    "Explain the following in simple words:\n\n{}",
    "Ask three questions about this text:\n\n{}",
    "Rewrite this text in a friendly tone:\n\n{}",
)


@dataclass(frozen=True)
class Answers:
    """Sequences of token ids; positions from ``starts[i]`` on were chosen by the target."""

    sequences: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Lessons:
    """Rows to train on, [rows, ROW], with the target's predictions.

    ``top_ids`` and ``top_log_probs`` are [rows, ROW, TOP].
    """

    ids: torch.Tensor
    top_ids: torch.Tensor
    top_log_probs: torch.Tensor


def prompts(samples: Sequence[Sample], tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """Questions about the texts in the model's chat format, and bare openings, in turn."""
    made = []
    for index, sample in enumerate(samples):
        text = _opening(sample)
        if index % 3 == 2 or tokenizer.chat_template is None:
            made.append(tuple(tokenizer(text)["input_ids"])[:_PROMPT_TOKENS])
            continue
        content = text if sample.messages else _ASKING[index % len(_ASKING)].format(text)
        turns = [{"role": "user", "content": content}]
        asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        made.append(tuple(tokenizer(asked, add_special_tokens=False)["input_ids"]))
    return tuple(made)


def _opening(sample: Sample) -> str:
    if sample.messages:
        return next((text for role, text in sample.messages if role == "user"), "")
    words = sample.text.split(" ")
    return " ".join(words[:_PROMPT_TOKENS])


def answer(
    model: Any,
    asked: Sequence[tuple[int, ...]],
    *,
    sampled: bool,
    what: str,
    progress: Progress,
) -> Answers:
    """Let the target answer; greedily, or at temperature 0.8 from torch's seeded generator."""
    import torch

    pad = model.config.eos_token_id
    pad = pad[0] if isinstance(pad, list) else pad or 0
    sequences, starts = [], []
    progress.start(what, len(asked), "prompts")
    for group in _groups(asked):
        width = max(map(len, group))
        ids = torch.full((len(group), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, prompt in enumerate(group):
            ids[index, width - len(prompt) :] = torch.tensor(prompt)
            mask[index, width - len(prompt) :] = 1
        device = next(model.parameters()).device
        choice = {"do_sample": True, "temperature": 0.8, "top_k": 0} if sampled else {}
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=ANSWER,
                pad_token_id=pad, **(choice or {"do_sample": False}),
            ).cpu()  # fmt: skip
        for prompt, row in zip(group, made.tolist(), strict=True):
            sequences.append(prompt + _until_padding(row[width:], pad))
            starts.append(len(prompt))
        progress.advance(len(group))
    progress.finish(f"{sum(map(len, sequences)) - sum(starts)} tokens")
    return Answers(tuple(sequences), tuple(starts))


def lessons(model: Any, tokenizer: Any, calibration: Calibration, *, progress: Progress) -> Lessons:
    """Calibration text and answers of the target to it, as rows with the target's predictions."""
    samples = load_samples(calibration)
    text = encode(samples, tokenizer, calibration.max_length)
    asked = prompts(samples, tokenizer)[:_PROMPTS]
    half = len(asked) // 2
    greedy = answer(model, asked[:half], sampled=False, what="answers", progress=progress)
    drawn = answer(model, asked[half:], sampled=True, what="sampled answers", progress=progress)
    stream = packed([*greedy.sequences, *drawn.sequences, *text], ROW)
    rows = [row for row in stream if len(row) == ROW]
    return _predictions(model, rows, progress=progress)


def text_rows(tokenizer: Any, calibration: Calibration) -> tuple[tuple[int, ...], ...]:
    """The calibration text alone as rows of ROW tokens.

    Raises:
        SpecError: it does not fill one row.
    """
    text = encode(load_samples(calibration), tokenizer, calibration.max_length)
    rows = tuple(row for row in packed(text, ROW) if len(row) == ROW)
    if not rows:
        raise SpecError(
            f"the calibration text {calibration.source} holds less than {ROW} tokens",
            where="quantization.calibration.source",
            hint="a draft is trained on it: give more text, or use builtin",
        )
    return rows


def heldout_answers(model: Any, tokenizer: Any, *, progress: Progress) -> Answers:
    """Greedy answers to prompts that share nothing with the training text."""
    asked = prompts(heldout_samples(), tokenizer)[:_HELDOUT_PROMPTS]
    return answer(model, asked, sampled=False, what="held-out answers", progress=progress)


def save(value: Lessons, path: Path) -> None:
    """Keep the lessons for a later run."""
    write_whole((value.ids, value.top_ids, value.top_log_probs), path)


def write_whole(state: Any, path: Path) -> None:
    """Save with torch so that the file is whole or absent, whenever the machine stops."""
    import torch

    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> Lessons:
    """The inverse of :func:`save`."""
    import torch

    return Lessons(*torch.load(path, weights_only=True))


def _predictions(model: Any, rows: Sequence[tuple[int, ...]], *, progress: Progress) -> Lessons:
    import torch

    ids = torch.tensor(rows)
    device = next(model.parameters()).device
    top_ids, top_log_probs = [], []
    progress.start("the target's predictions", ids.numel(), "tokens")
    with torch.inference_mode():
        for part in ids.split(8):
            logits = model(input_ids=part.to(device), use_cache=False).logits.float()
            values, indices = torch.log_softmax(logits, -1).topk(TOP, dim=-1)
            top_ids.append(indices.to(torch.int32).cpu())
            top_log_probs.append(values.cpu())
            progress.advance(part.numel())
    progress.finish()
    return Lessons(ids, torch.cat(top_ids), torch.cat(top_log_probs))


def _groups(asked: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    ordered = sorted(asked, key=len)
    for start in range(0, len(ordered), _ANSWER_BATCH):
        yield ordered[start : start + _ANSWER_BATCH]


def _until_padding(row: list[int], pad: int) -> tuple[int, ...]:
    # The end token itself is an answer worth learning; what follows it is padding.
    return tuple(row[: row.index(pad) + 1]) if pad in row else tuple(row)
