from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf_files import HEAD, HIDDEN, INNER, TinyGguf
from ml_dtypes import bfloat16

from toolkit.checkpoint import Llama3Rope, converter, fetch, read_architecture, verify
from toolkit.checkpoint.gguf import convert
from toolkit.checkpoint.gguf_config import llama3_factors
from toolkit.checkpoint.weights import read_weights
from toolkit.errors import SpecError, ToolkitError, UnsupportedError
from toolkit.progress import Silent
from toolkit.spec.models import ModelSource
from toolkit.workspace import Workspace

Q = GGMLQuantizationType


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def converted(tiny: TinyGguf, out: Path, **options: Any) -> dict[str, np.ndarray]:
    source = out.parent / "tiny.gguf"
    expected = tiny.write(source)
    convert(source, out, Silent(), **options)
    return expected


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_value_comes_back_under_its_name(out: Path, arch: str, tied: bool) -> None:
    expected = converted(TinyGguf(arch, tied=tied), out)
    weights = read_weights(out)
    assert weights.tensors.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(weights.read(name), value.astype(bfloat16))
    assert verify(out, deep=True).problems == ()
    assert read_architecture(out).family == arch


@pytest.mark.parametrize("quantization", [Q.F32, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q8_0])
def test_formats(out: Path, quantization: GGMLQuantizationType) -> None:
    expected = converted(TinyGguf(quantization=quantization), out)
    name = "model.layers.1.self_attn.q_proj.weight"
    np.testing.assert_array_equal(read_weights(out).read(name), expected[name].astype(bfloat16))


def test_half_precision_is_kept_exactly(out: Path) -> None:
    expected = converted(TinyGguf(quantization=Q.F16), out)
    assert read_architecture(out).dtype == "float16"
    for name, value in expected.items():
        np.testing.assert_array_equal(read_weights(out).read(name), value.astype(np.float16))


def test_large_models_are_sharded_with_an_index(out: Path) -> None:
    expected = converted(TinyGguf(), out, shard_bytes=40_000)
    weights = read_weights(out)
    assert len(weights.files) > 2
    assert max((out / name).stat().st_size for name in weights.files) < 50_000
    assert weights.tensors.keys() == expected.keys()
    assert verify(out).problems == ()


def test_numbers_of_the_config(out: Path) -> None:
    converted(TinyGguf(), out)
    arch = read_architecture(out)
    assert (arch.rope_theta, arch.rms_norm_eps, arch.max_position) == (500000.0, 1e-5, 256)
    assert (arch.head_dim, arch.num_kv_heads, arch.tied_embeddings) == (HEAD, 2, True)
    assert arch.rope_scaling is None
    assert arch.bos_token_id == 1


def test_generation_ends_at_every_end_token(out: Path) -> None:
    converted(TinyGguf(), out)
    generation = json.loads((out / "generation_config.json").read_text())
    # <|im_end|> as the metadata says, and <|endoftext|>, which is a control token.
    assert generation["eos_token_id"] == [2, 0]
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == 2


@pytest.mark.parametrize(
    ("metadata", "scaling"),
    [
        ({"{arch}.rope.scaling.type": "none"}, None),
        ({"{arch}.rope.scaling.type": "linear", "{arch}.rope.scaling.factor": 2.0},
         {"rope_type": "linear", "factor": 2.0}),
        ({"{arch}.rope.scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"{arch}.rope.scaling.type": "yarn", "{arch}.rope.scaling.factor": 4.0,
          "{arch}.rope.scaling.original_context_length": 64},
         {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
          "beta_fast": 32.0, "beta_slow": 1.0}),
    ],
)  # fmt: skip
def test_rope_scaling(out: Path, metadata: dict, scaling: dict | None) -> None:
    converted(TinyGguf(metadata=metadata), out)
    assert json.loads((out / "config.json").read_text())["rope_scaling"] == scaling


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_31s_scaling_is_found_behind_its_frequencies(out: Path, factor: float) -> None:
    parameters = {
        "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    factors = llama3_factors(parameters, 500000.0, HEAD).astype(np.float32)
    converted(TinyGguf(extra={"rope_freqs.weight": factors}), out)
    assert read_architecture(out).rope_scaling == Llama3Rope(factor, 1.0, 4.0, 8192)


def test_llama_31s_factors_are_those_of_transformers() -> None:
    """The formula against the reference, by dividing plain frequencies by scaled ones."""
    from transformers import LlamaConfig
    from transformers import modeling_rope_utils as rope

    parameters = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(hidden_size=128, num_attention_heads=1, rope_parameters=parameters)
    scaled, _ = rope.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 500000.0 ** (np.arange(0, 128, 2) / 128)
    ours = llama3_factors(parameters, 500000.0, 128)
    np.testing.assert_allclose(ours, plain / scaled.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("tiny", "message"),
    [
        (TinyGguf(arch="gemma2"), "architecture 'gemma2'"),
        (TinyGguf(metadata={"{arch}.expert_count": 8}), "mixture of experts"),
        (TinyGguf(metadata={"{arch}.attention.sliding_window": 64}), "sliding attention window"),
        (TinyGguf(metadata={"{arch}.attention.value_length": 8}), "value heads"),
        (TinyGguf(metadata={"{arch}.logit_scale": 0.5}), "scaled logits"),
        (TinyGguf(metadata={"split.count": 2}), "split over several files"),
        (TinyGguf(metadata={"{arch}.rope.scaling.type": "longrope"}), "'longrope'"),
        (TinyGguf(extra={"rope_freqs.weight": np.full(HEAD // 2, 3.0, np.float32)}),
         "not that of Llama 3.1"),
        (TinyGguf(extra={"blk.0.attn_sinks.weight": np.ones(4, np.float32)}), "attn_sinks"),
        (TinyGguf(extra={"blk.0.attn_q.bias": np.ones(64, np.float32)}), "lacks model.layers.0"),
        (TinyGguf(without=("blk.1.ffn_up.weight",)), "lacks model.layers.1.mlp.up_proj.weight"),
        (TinyGguf(pre="falcon"), "'falcon'"),
        (TinyGguf(without=("blk.0.ffn_up.weight",),
                  extra={"blk.0.ffn_up.weight": np.ones((INNER, HIDDEN), np.int32)}), "I32"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, tiny: TinyGguf, message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        converted(tiny, _folder(tmp_path))
    assert list(tmp_path.rglob("*.safetensors")) == []


def _folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.mark.parametrize("cut", [2, 100, 5000, 60_000])
def test_a_truncated_file(tmp_path: Path, cut: int) -> None:
    source = tmp_path / "tiny.gguf"
    TinyGguf().write(source)
    source.write_bytes(source.read_bytes()[:cut])
    with pytest.raises(SpecError, match=r"no GGUF file|damaged or truncated") as caught:
        convert(source, _folder(tmp_path), Silent())
    assert caught.value.where == str(source)


def test_as_a_source_it_is_converted_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    TinyGguf().write(tmp_path / "tiny.gguf")
    source = ModelSource(source=str(tmp_path / "tiny.gguf"))
    first = fetch(source, workspace, progress=Silent())
    assert not first.reused
    again = fetch(source, workspace, progress=Silent())
    assert again.reused
    assert again.path == first.path
    TinyGguf(seed=1).write(tmp_path / "tiny.gguf")
    assert fetch(source, workspace, progress=Silent()).key != first.key


def test_another_converter_or_library_converts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    TinyGguf().write(tmp_path / "tiny.gguf")
    source = ModelSource(source=str(tmp_path / "tiny.gguf"))
    first = fetch(source, workspace, progress=Silent())
    current = converter.converter()
    for change in ({"code": "other"}, {"gguf": "0.0"}, {"tokenizers": "0.0"}):
        assert change.keys() <= current.keys()
        monkeypatch.setattr(converter, "converter", lambda change=change: {**current, **change})
        assert not fetch(source, workspace, progress=Silent()).reused
    monkeypatch.undo()
    assert fetch(source, workspace, progress=Silent()).key == first.key


def test_the_converter_is_all_the_code_that_decides_a_conversion() -> None:
    import grimp

    room = "toolkit.checkpoint"
    graph = grimp.build_graph("toolkit")
    seen, pending = set(), [f"{room}.gguf"]
    while pending:
        module = pending.pop()
        seen.add(module)
        below = graph.find_modules_directly_imported_by(module)
        pending += [each for each in below if each.startswith(f"{room}.") and each not in seen]
    # They decide whether there is room, not what is written.
    seen.discard(f"{room}.files")
    assert {f"{room}.{name}" for name in converter.MODULES} == seen


def test_an_interrupted_conversion_leaves_no_artifact(tmp_path: Path) -> None:
    class Interrupting(Silent):
        def advance(self, amount: float = 1) -> None:
            if amount == 2 * 64 * 64:
                raise KeyboardInterrupt

    workspace = Workspace(tmp_path / "workspace")
    TinyGguf().write(tmp_path / "tiny.gguf")
    source = ModelSource(source=str(tmp_path / "tiny.gguf"))
    with pytest.raises(KeyboardInterrupt):
        fetch(source, workspace, progress=Interrupting())
    assert workspace.list() == []
    assert fetch(source, workspace, progress=Silent()).path.is_dir()


def test_errors_have_a_place(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError) as caught:
        convert(tmp_path / "none.gguf", tmp_path, Silent())
    assert caught.value.where == str(tmp_path / "none.gguf")
