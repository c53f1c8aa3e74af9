"""The accuracy gate: the checkpoint that was written against the original, on held-out text.

The original's log probabilities are kept on disk in half precision (2 bytes x vocabulary a
token), so that only one model is in memory at a time; rounding them changes a divergence by far
less than the third digit that is reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import ValidationFailed
from toolkit.progress import Progress
from toolkit.quantize.formats import AcceptLimits
from toolkit.quantize.report import GateFigures

if TYPE_CHECKING:
    import torch

_BATCH_TOKENS = 512
_FLOOR = -60000.0
"""Smallest log probability that half precision holds."""


@dataclass(frozen=True)
class Reference:
    """The original model's answers.

    Attributes:
        rows: Token ids of each held-out text.
        path: Raw float16 log probabilities [positions, vocabulary], in the order of ``rows``.
        vocabulary: Columns of that file.
        negative_log_likelihood: Sum over all positions, in nats.
    """

    rows: tuple[tuple[int, ...], ...]
    path: Path
    vocabulary: int
    negative_log_likelihood: float

    @property
    def positions(self) -> int:
        """Tokens that are predicted: all but the first of each row."""
        return sum(len(row) - 1 for row in self.rows)


def record_reference(
    model: Any, rows: Sequence[tuple[int, ...]], path: Path, *, progress: Progress
) -> Reference:
    """Run the original model over ``rows`` and keep its log probabilities in ``path``."""
    import torch

    ordered = tuple(sorted(rows, key=len))
    total, vocabulary = 0.0, 0
    progress.start("original on held-out text", sum(len(row) - 1 for row in ordered), "tokens")
    with path.open("wb") as file:
        for log_probs, targets in _predictions(model, ordered):
            vocabulary = log_probs.shape[1]
            total -= float(log_probs.gather(1, targets[:, None]).double().sum())
            half = log_probs.clamp(min=_FLOOR).to(torch.float16).cpu()
            file.write(half.contiguous().numpy().tobytes())
            progress.advance(len(targets))
    progress.finish()
    return Reference(ordered, path, vocabulary, total)


def measure(model: Any, reference: Reference, *, progress: Progress) -> GateFigures:
    """Compare ``model`` with the recorded answers, position by position."""
    import numpy as np
    import torch

    shape = (reference.positions, reference.vocabulary)
    recorded = np.memmap(reference.path, np.float16, "r", shape=shape)
    nll, divergence, agreeing, position = 0.0, 0.0, 0, 0
    progress.start("quantized on held-out text", reference.positions, "tokens")
    for log_probs, targets in _predictions(model, reference.rows):
        part = np.array(recorded[position : position + len(targets)])
        original = torch.from_numpy(part).to(log_probs.device).float()
        nll -= float(log_probs.gather(1, targets[:, None]).double().sum())
        divergence += float((original.exp() * (original - log_probs)).sum(1).double().sum())
        agreeing += int((original.argmax(1) == log_probs.argmax(1)).sum())
        position += len(targets)
        progress.advance(len(targets))
    figures = GateFigures(
        tokens=position,
        perplexity_original=math.exp(reference.negative_log_likelihood / position),
        perplexity_quantized=_exp(nll / position),
        kl_divergence=divergence / position,
        top1_agreement=agreeing / position,
    )
    progress.finish(describe(figures))
    return figures


def judge(figures: GateFigures, limits: AcceptLimits, weights: str) -> None:
    """Pass, or name every figure that is past its limit.

    Raises:
        ValidationFailed: naming the figures, their limits and what to try.
    """
    # Written so that a figure that is not a number fails.
    failures = []
    if not figures.perplexity_increase <= limits.perplexity_increase:
        failures.append(
            f"perplexity rose by {figures.perplexity_increase:.1%} "
            f"({figures.perplexity_original:.2f} to {figures.perplexity_quantized:.2f}), "
            f"perplexity_increase accepts {limits.perplexity_increase:.1%}"
        )
    if not figures.kl_divergence <= limits.kl_divergence:
        failures.append(
            f"the mean KL divergence is {figures.kl_divergence:.4f} nats, "
            f"kl_divergence accepts {limits.kl_divergence:.4f}"
        )
    if not figures.top1_agreement >= limits.top1_agreement:
        failures.append(
            f"the most likely token agrees at {figures.top1_agreement:.1%} of positions, "
            f"top1_agreement asks for {limits.top1_agreement:.1%}"
        )
    if failures:
        raise ValidationFailed(
            f"the accuracy gate failed on {figures.tokens} tokens: {failures[0]}",
            where="quantization.accept",
            hint=_advice(weights),
            details=failures[1:],
        )


def describe(figures: GateFigures) -> str:
    """One line for people."""
    return (
        f"perplexity {figures.perplexity_original:.2f} -> {figures.perplexity_quantized:.2f}, "
        f"KL {figures.kl_divergence:.4f}, top-1 {figures.top1_agreement:.1%}"
    )


def _advice(weights: str) -> str:
    milder = {
        "int4_awq": "fp8, or exclude down_proj",
        "w4a8_awq": "int4_awq or fp8",
        "int8_sq": "fp8",
        "nvfp4": "fp8",
        "fp8": "excluding the first and last layers",
    }
    return (
        f"try {milder.get(weights, 'kv_cache: none')}, or calibration text closer to your traffic; "
        "if the loss is acceptable, raise the limit under quantization.accept"
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _predictions(
    model: Any, rows: Sequence[tuple[int, ...]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``(log probabilities [n, vocabulary], next tokens [n])`` for batches of rows, in order.

    Rows are padded on the right; under a causal mask that changes nothing to their left.
    """
    import torch

    device = next(model.parameters()).device
    for group in _groups(rows):
        width = max(map(len, group))
        ids = torch.zeros(len(group), width, dtype=torch.long)
        mask = torch.zeros(len(group), width, dtype=torch.long)
        for index, row in enumerate(group):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        with torch.inference_mode():
            logits = model(
                input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
            ).logits
            wanted = mask[:, 1:].bool().to(device)
            log_probs = torch.log_softmax(logits[:, :-1][wanted].float(), dim=-1)
            yield log_probs, ids[:, 1:].to(device)[wanted]


def _groups(rows: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    group: list[tuple[int, ...]] = []
    for row in rows:
        if group and (len(group) + 1) * max(len(row), *map(len, group)) > _BATCH_TOKENS:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
