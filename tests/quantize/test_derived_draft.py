from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.checkpoint.architecture import Architecture, read_architecture
from toolkit.errors import UnsupportedError
from toolkit.progress import Silent
from toolkit.quantize import distill
from toolkit.quantize.distill import derive_here
from toolkit.quantize.draft import check_draft, derive_draft, kept_layers
from toolkit.quantize.draft_report import DraftReport, tokens_per_step
from toolkit.quantize.unified import UnifiedCheckpoint
from toolkit.spec.models import Calibration

FEW = Calibration(samples=12, max_length=64)


@given(st.integers(2, 120).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, n))))
def test_the_ends_are_kept_and_the_rest_is_even(sizes: tuple[int, int]) -> None:
    total, layers = sizes
    kept = kept_layers(total, layers)
    assert len(set(kept)) == layers
    assert (kept[0], kept[-1]) == (0, total - 1)
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert max(gaps) - min(gaps) <= 1


def test_one_layer_is_the_first() -> None:
    assert kept_layers(30, 1) == (0,)


def derive(checkpoint: Path, out: Path, steps: int, layers: int = 2, seed: int = 0) -> DraftReport:
    out.mkdir(exist_ok=True)
    return derive_here(
        checkpoint,
        layers=layers,
        steps=steps,
        calibration=FEW,
        out=out,
        seed=seed,
        progress=Silent(),
    )


def weights(path: Path) -> bytes:
    return (path / "out" / "model.safetensors").read_bytes()


def test_without_steps_it_is_the_target_with_fewer_layers(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    import numpy as np

    report = derive(small_checkpoint, tmp_path, steps=0)
    assert report.layers == (0, 3)
    assert report.acceptance == report.acceptance_before
    draft, target = UnifiedCheckpoint(tmp_path / "out"), UnifiedCheckpoint(small_checkpoint)
    for name in draft.names:
        source = name.replace("layers.1.", "layers.3.")
        np.testing.assert_array_equal(
            draft.tensor(name).view("u2"), target.tensor(source).view("u2")
        )
    small, large = read_architecture(tmp_path / "out"), read_architecture(small_checkpoint)
    assert (small.num_layers, small.vocab_size, small.rope_theta) == (2, 384, large.rope_theta)
    assert report.parameters == small.parameters < report.target_parameters == large.parameters


def test_distilling_brings_it_closer_and_leaves_the_head_alone(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    import numpy as np

    report = derive(small_checkpoint, tmp_path, steps=30)
    assert report.loss_first is not None
    assert report.loss_last is not None
    assert report.loss_last < 0.8 * report.loss_first
    assert report.heldout_tokens > 100
    draft, target = UnifiedCheckpoint(tmp_path / "out"), UnifiedCheckpoint(small_checkpoint)
    for name in ("model.embed_tokens.weight", "model.norm.weight"):
        np.testing.assert_array_equal(draft.tensor(name).view("u2"), target.tensor(name).view("u2"))
    assert draft.info(name).dtype == "BF16"


def test_a_stopped_run_continues_to_the_same_draft(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = derive(small_checkpoint, tmp_path / "whole", steps=24)
    monkeypatch.setattr(distill, "_SAVE_EVERY", 5)
    step = distill.loss
    calls = []

    def stops(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(distill, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        derive(small_checkpoint, tmp_path / "stopped", steps=24)
    assert not (tmp_path / "stopped" / "out").exists()
    calls.clear()
    monkeypatch.setattr(distill, "loss", lambda *a: (calls.append(a), step(*a))[1])
    continued = derive(small_checkpoint, tmp_path / "stopped", steps=24)
    assert len(calls) == 24 - 10
    assert continued.loss_first == whole.loss_first
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_a_seed_decides_the_draft(small_checkpoint: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        derive(small_checkpoint, tmp_path / name, steps=3, seed=seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")


def test_the_public_call(small_checkpoint: Path, tmp_path: Path) -> None:
    report = derive_draft(small_checkpoint, 1, 2, FEW, tmp_path / "out", progress=Silent())
    assert read_architecture(tmp_path / "out").num_layers == 1
    notes = json.loads((tmp_path / "out" / "notes.json").read_text())
    assert DraftReport.from_json(notes) == report
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("layers", [0, 4, 5])
def test_a_draft_must_be_smaller(small_arch: Architecture, layers: int) -> None:
    with pytest.raises(UnsupportedError, match="no smaller"):
        check_draft(small_arch, layers)


def test_expected_tokens_of_a_step() -> None:
    assert tokens_per_step(0.0) == 1
    assert tokens_per_step(1.0) == 6
    assert tokens_per_step(0.5, 2) == pytest.approx(1 + 0.5 + 0.25)
