from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.checkpoint.architecture import Architecture, read_architecture
from toolkit.errors import SpecError, UnsupportedError
from toolkit.progress import Silent
from toolkit.quantize import distill, draft
from toolkit.quantize.distill import derive_here
from toolkit.quantize.draft import check_draft, derive_draft, kept_layers
from toolkit.quantize.draft_report import DraftReport, tokens_per_step
from toolkit.quantize.unified import UnifiedCheckpoint
from toolkit.spec.models import Calibration

FEW = Calibration(samples=12, max_length=64)


@given(st.lists(st.floats(0, 2), min_size=2, max_size=60), st.data())
def test_the_ends_and_the_most_influential_are_kept(
    influence: list[float], data: st.DataObject
) -> None:
    layers = data.draw(st.integers(2, len(influence)))
    kept = kept_layers(influence, layers)
    assert len(kept) == layers
    assert list(kept) == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, len(influence) - 1)
    dropped = [influence[index] for index in range(len(influence)) if index not in kept]
    chosen = [influence[index] for index in kept[1:-1]]
    assert not chosen or not dropped or min(chosen) >= max(dropped)


def test_one_layer_is_the_first() -> None:
    assert kept_layers([0.1, 0.5, 0.9], 1) == (0,)


def test_a_layer_that_does_nothing_has_no_influence(small_checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(small_checkpoint, dtype=torch.float32)
    for linear in ("self_attn.o_proj", "mlp.down_proj"):
        torch.nn.init.zeros_(model.model.layers[1].get_submodule(linear).weight)
    tokenizer = AutoTokenizer.from_pretrained(small_checkpoint)
    influence = distill.layer_influence(model, tokenizer, FEW)
    assert len(influence) == 4
    assert influence[1] == pytest.approx(0, abs=1e-6)
    assert min(influence[0], influence[2], influence[3]) > 0.01


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


def test_too_little_text_is_told(small_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Too short.\n")
    little = Calibration(source=str(tmp_path / "own.txt"))
    with pytest.raises(SpecError, match="128 tokens") as caught:
        derive_draft(small_checkpoint, 1, 2, little, tmp_path / "out", progress=Silent())
    assert caught.value.where == "quantization.calibration.source"


def test_the_state_of_another_request_is_not_continued(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(job: str, request: dict[str, Any], **_: Any) -> dict[str, Any]:
        (Path(request["out"]) / "state.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(draft, "run_job", fails)
    out = tmp_path / "out"
    found = []
    for layers in (1, 1, 2):
        found.append((out / ".draft" / "state.pt").exists())
        with pytest.raises(KeyboardInterrupt):
            derive_draft(small_checkpoint, layers, 2, FEW, out, progress=Silent())
    monkeypatch.undo()
    report = derive_draft(small_checkpoint, 1, 2, FEW, out, progress=Silent())
    assert report.layers == (0,)
    assert found == [False, True, True]


def test_the_state_is_continued_where_its_directory_was_renamed(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever takes over an interrupted build takes its directory under another name.
    found, states = [], []

    def fails(job: str, request: dict[str, Any], **_: Any) -> dict[str, Any]:
        states.append(Path(request["out"]) / "state.pt")
        found.append(states[-1].exists())
        states[-1].touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(draft, "run_job", fails)
    for name in ("first", "second"):
        with pytest.raises(KeyboardInterrupt):
            derive_draft(small_checkpoint, 1, 2, FEW, tmp_path / name, progress=Silent())
        (tmp_path / "first").exists() and (tmp_path / "first").rename(tmp_path / "second")
    assert found == [False, True]
    assert states[1].parent.parent == tmp_path / "second"


@pytest.mark.parametrize("layers", [0, 4, 5])
def test_a_draft_must_be_smaller(small_arch: Architecture, layers: int) -> None:
    with pytest.raises(UnsupportedError, match="no smaller"):
        check_draft(small_arch, layers)


def test_expected_tokens_of_a_step() -> None:
    assert tokens_per_step(0.0) == 1
    assert tokens_per_step(1.0) == 6
    assert tokens_per_step(0.5, 2) == pytest.approx(1 + 0.5 + 0.25)
