"""Train a layer-dropped student on its target's predictions: the work of :func:`derive_draft`.

Embedding table, output head and final norm stay the target's own and are not trained: they are
most of a small model's weights, and the student has only to arrive at hidden states that the head
reads in the same way.
"""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.progress import Progress
from toolkit.quantize import distill_data
from toolkit.quantize.distill_data import Answers, Lessons
from toolkit.quantize.draft import kept_layers
from toolkit.quantize.draft_report import DraftReport, tokens_per_step
from toolkit.quantize.export_files import complete_config, copy_beside
from toolkit.quantize.modelopt_run import Stopwatch, load_model, peak_memory
from toolkit.spec.models import Calibration

if TYPE_CHECKING:
    import torch

BATCH = 8
"""Rows of one optimizer step."""
LEARNING_RATE = 2e-3
_WARM_UP = 10
_INFLUENCE_ROWS = 4
_SAMPLED = 2048
"""Tokens of the vocabulary that stand for all that the target finds unlikely."""
_SAVE_EVERY = 20
_STATE = "state.pt"
_LESSONS = "lessons.pt"


def derive_here(
    checkpoint: Path,
    *,
    layers: int,
    steps: int,
    calibration: Calibration,
    out: Path,
    seed: int,
    progress: Progress,
) -> DraftReport:
    """Write the draft into ``out/out``; ``out`` keeps what a later call continues from."""
    import torch

    torch.manual_seed(seed)
    watch = Stopwatch()
    with watch.stage("load"):
        target, tokenizer = load_model(checkpoint, progress=progress)
    distill_data.text_rows(tokenizer, calibration)  # too little text is told before the answers
    with watch.stage("answers"):
        held_out = distill_data.heldout_answers(target, tokenizer, progress=progress)
        lessons = _lessons(target, tokenizer, calibration, steps, out, progress)
    kept = kept_layers(layer_influence(target, tokenizer, calibration), layers)
    student = drop_layers(target, kept)
    sizes = parameters(student), parameters(target)
    del target
    before, positions = acceptance(student, held_out)
    with watch.stage("distill"):
        losses = train(student, lessons, steps, seed, out, progress=progress) if lessons else []
    after, _ = acceptance(student, held_out)
    _write(student, checkpoint, out / "out")
    return DraftReport(
        layers=kept,
        parameters=sizes[0],
        target_parameters=sizes[1],
        steps=steps,
        train_tokens=steps * BATCH * distill_data.ROW,
        loss_first=_mean(losses[:10]),
        loss_last=_mean(losses[-10:]),
        acceptance_before=before,
        acceptance=after,
        accepted_per_step=tokens_per_step(after),
        heldout_tokens=positions,
        seconds=watch.seconds,
        peak_memory_bytes=peak_memory(),
    )


def layer_influence(target: Any, tokenizer: Any, calibration: Calibration) -> list[float]:
    """1 - cosine between a layer's input and output, mean over calibration tokens, for each layer.

    After "ShortGPT" (arXiv 2403.03853), which drops the layers that score lowest. On the sample
    model five layers chosen so accepted 0.26 of the tokens after 60 steps, evenly spaced ones
    0.20, the first three and the last two 0.23.
    """
    import torch

    rows = distill_data.text_rows(tokenizer, calibration)[:_INFLUENCE_ROWS]
    device = next(target.parameters()).device
    with torch.inference_mode():
        states = target.model(
            input_ids=torch.tensor(rows, device=device), output_hidden_states=True, use_cache=False
        ).hidden_states
    return [
        1 - float(torch.cosine_similarity(before.float(), after.float(), dim=-1).mean())
        for before, after in itertools.pairwise(states)
    ]


def drop_layers(target: Any, kept: tuple[int, ...]) -> Any:
    """A copy of ``target`` with the layers ``kept``, in float32 for training."""
    import torch

    config = copy.deepcopy(target.config)
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in kept]
    layers, target.model.layers = target.model.layers, torch.nn.ModuleList()
    try:
        student = copy.deepcopy(target)
    finally:
        target.model.layers = layers
    chosen = [copy.deepcopy(layers[index]) for index in kept]
    for index, layer in enumerate(chosen):
        layer.self_attn.layer_idx = index
    student.model.layers = torch.nn.ModuleList(chosen)
    student.config = student.model.config = config
    student.model.config.dtype = target.dtype
    return student.float()


def train(
    student: Any, lessons: Lessons, steps: int, seed: int, out: Path, *, progress: Progress
) -> list[float]:
    """Distil for ``steps`` steps, continuing from a saved state in ``out``; the loss of each."""
    import torch

    trained = list(student.model.layers.parameters())
    student.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    losses = _resume(student, optimizer, out / _STATE)
    order = _order(len(lessons.ids), steps, seed)
    progress.start("distill the draft", steps, "steps")
    progress.advance(len(losses))
    student.train()
    for step in range(len(losses), steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate(step, steps)
        optimizer.zero_grad(set_to_none=True)
        value = loss(student, lessons, order[step])
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(value.detach()))
        if len(losses) % _SAVE_EVERY == 0:
            _save(student, optimizer, losses, out / _STATE)
        progress.advance()
    student.eval()
    progress.finish(f"loss {_mean(losses[:10]) or 0:.2f} -> {_mean(losses[-10:]) or 0:.2f}")
    return losses


def loss(student: Any, lessons: Lessons, rows: torch.Tensor) -> torch.Tensor:
    """Mean KL divergence to the target over the positions of ``rows``, in nats.

    Over the target's most likely tokens one by one and everything else as one outcome, which
    bounds the full divergence from below and is exact where the rest is negligible. The student's
    normalizer sums the tokens that occur among those and a random sample of all others, weighted
    for what it stands for: the product with the whole vocabulary would be most of the work.
    """
    import torch

    device = next(student.parameters()).device
    ids = lessons.ids[rows].to(device)
    wanted = lessons.top_ids[rows].to(device).long()
    expected = lessons.top_log_probs[rows].to(device)
    head = student.get_output_embeddings().weight
    columns, places = wanted.unique(return_inverse=True)
    others = _others(columns, head.shape[0], int(rows.sum()))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        hidden = student.model(input_ids=ids, use_cache=False).last_hidden_state
        logits = (hidden @ head[torch.cat([columns, others])].T).float()
    known, unknown = logits[..., : len(columns)], logits[..., len(columns) :]
    normalizer = known.logsumexp(-1, keepdim=True)
    if len(others):
        stands_for = (head.shape[0] - len(columns)) / len(others)
        sampled = unknown.logsumexp(-1, keepdim=True) + math.log(stands_for)
        normalizer = torch.logaddexp(normalizer, sampled)
    got = known.gather(-1, places) - normalizer
    rest, got_rest = _rest(expected), _rest(got)
    divergence = (expected.exp() * (expected - got)).sum(-1) + rest.exp() * (rest - got_rest)
    return divergence.mean()


def acceptance(student: Any, answers: Answers) -> tuple[float, int]:
    """Share of answer positions at which ``student`` would have chosen the target's token."""
    import torch

    agreeing = positions = 0
    device = next(student.parameters()).device
    student.eval()
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
        for sequence, start in zip(answers.sequences, answers.starts, strict=True):
            ids = torch.tensor([sequence], device=device)
            chosen = student(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].argmax(-1)
            agreeing += int((chosen == ids[0, start:]).sum())
            positions += len(chosen)
    return agreeing / max(positions, 1), positions


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: a short warm-up, then half a cosine down to a tenth."""
    if step < _WARM_UP:
        return (step + 1) / _WARM_UP
    return 0.55 + 0.45 * math.cos(math.pi * (step - _WARM_UP) / max(steps - _WARM_UP, 1))


def parameters(model: Any) -> int:
    """Number of weights; tied ones count once."""
    return sum(value.numel() for value in model.parameters())


def _lessons(
    target: Any, tokenizer: Any, calibration: Calibration, steps: int, out: Path, progress: Progress
) -> Lessons | None:
    if not steps:
        return None
    path = out / _LESSONS
    if not path.exists():
        made = distill_data.lessons(target, tokenizer, calibration, progress=progress)
        distill_data.save(made, path)
    return distill_data.load(path)


def _others(columns: torch.Tensor, vocabulary: int, seed: int) -> torch.Tensor:
    """A random sample of the tokens that are not among ``columns``."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    free = torch.ones(vocabulary, dtype=torch.bool)
    free[columns.cpu()] = False
    candidates = free.nonzero().squeeze(1)
    chosen = torch.randperm(len(candidates), generator=generator)[:_SAMPLED]
    return candidates[chosen].to(columns.device)


def _rest(log_probs: torch.Tensor) -> torch.Tensor:
    """Log probability of everything outside the last dimension's tokens."""
    import torch

    return torch.log1p(-log_probs.exp().sum(-1).clamp(max=1 - 1e-5))


def _order(rows: int, steps: int, seed: int) -> list[torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    needed = steps * BATCH
    passes = [torch.randperm(rows, generator=generator) for _ in range(-(-needed // rows))]
    return list(torch.cat(passes)[:needed].split(BATCH))


def _save(student: Any, optimizer: Any, losses: list[float], path: Path) -> None:
    state = {
        "layers": student.model.layers.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": losses,
    }
    distill_data.write_whole(state, path)


def _resume(student: Any, optimizer: Any, path: Path) -> list[float]:
    import torch

    if not path.exists():
        return []
    state = torch.load(path, weights_only=True)
    student.model.layers.load_state_dict(state["layers"])
    optimizer.load_state_dict(state["optimizer"])
    return list(state["losses"])


def _write(student: Any, checkpoint: Path, out: Path) -> None:
    student.to(student.config.dtype).save_pretrained(out)
    copy_beside(checkpoint, out)
    complete_config(checkpoint, out)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
