from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.checkpoint.safetensors_file import SafetensorsWriter, TensorSpec
from toolkit.errors import SpecError
from toolkit.quantize.unified import (
    UnifiedCheckpoint,
    round_fp8,
    unpack_int4,
    unpack_nvfp4,
)

NAMES = {
    "float32": "F32", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "int8": "I8", "uint8": "U8",
}  # fmt: skip
LAYER = "model.layers.0.self_attn.q_proj"
RANDOM = np.random.default_rng(3)


def write(path: Path, tensors: dict[str, Any]) -> UnifiedCheckpoint:
    path.mkdir(exist_ok=True)
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    specs = {name: TensorSpec(NAMES[a.dtype.name], a.shape) for name, a in arrays.items()}
    with SafetensorsWriter(path / "model.safetensors", specs) as writer:
        writer.write(arrays.values())
    (path / "config.json").write_text('{"num_hidden_layers": 1}')
    return UnifiedCheckpoint(path)


@given(
    st.integers(1, 6).flatmap(
        lambda half: st.lists(
            st.lists(st.integers(-8, 7), min_size=3, max_size=3),
            min_size=2 * half,
            max_size=2 * half,
        )
    )
)
def test_int4_rows_alternate_low_and_high_nibble(rows: list[list[int]]) -> None:
    packed = np.array(
        [
            [
                (low & 15) | ((high & 15) << 4)
                for low, high in zip(rows[i], rows[i + 1], strict=True)
            ]
            for i in range(0, len(rows), 2)
        ],
        np.uint8,
    )
    assert unpack_int4(packed).tolist() == rows


def test_nvfp4_inputs_alternate_low_and_high_nibble() -> None:
    packed = np.array([[0x10, 0xF7, 0x98]], np.uint8)
    assert unpack_nvfp4(packed).tolist() == [[0.0, 0.5, 6.0, -6.0, -0.0, -0.5]]


def test_fp8_with_one_scale_a_tensor(tmp_path: Path) -> None:
    values = RANDOM.normal(size=(4, 6)).astype(ml_dtypes.float8_e4m3fn)
    checkpoint = write(
        tmp_path,
        {
            f"{LAYER}.weight": values,
            f"{LAYER}.weight_scale": np.array(0.25, np.float32),
            f"{LAYER}.input_scale": np.array(0.5, np.float32),
            f"{LAYER}.bias": np.arange(4, dtype=np.float32),
        },
    )
    linear = checkpoint.linear(LAYER)
    assert (linear.weight_format, linear.block, linear.input_scale) == ("fp8", None, 0.5)
    np.testing.assert_array_equal(linear.dequantize(), values.astype(np.float32) * 0.25)
    assert linear.bias is not None
    assert linear.bias.tolist() == [0, 1, 2, 3]


def test_int8_with_a_scale_a_row_and_smoothing(tmp_path: Path) -> None:
    values = RANDOM.integers(-128, 128, (3, 5)).astype(np.int8)
    scale = np.array([0.1, 0.2, 0.3], np.float32)
    smooth = np.array([1, 2, 4, 8, 16]).astype(ml_dtypes.bfloat16)
    checkpoint = write(
        tmp_path,
        {
            f"{LAYER}.weight": values,
            f"{LAYER}.weight_scale": scale,
            f"{LAYER}.pre_quant_scale": smooth,
        },
    )
    linear = checkpoint.linear(LAYER)
    np.testing.assert_allclose(linear.dequantize(), values * scale[:, None])
    x = RANDOM.normal(size=(2, 5)).astype(np.float32)
    scaled = (x * smooth.astype(np.float32)) @ linear.dequantize().T
    np.testing.assert_allclose(x @ linear.effective_weight().T, scaled, rtol=1e-5)


def test_int4_blocks_and_the_second_rounding_of_w4a8(tmp_path: Path) -> None:
    integers = RANDOM.integers(-8, 8, (4, 8)).astype(np.int8)
    packed = ((integers[0::2] & 15) | ((integers[1::2] & 15) << 4)).astype(np.uint8)
    scale = RANDOM.uniform(0.01, 0.1, (4, 2)).astype(np.float32)
    tensors = {f"{LAYER}.weight": packed, f"{LAYER}.weight_scale": scale}
    plain = write(tmp_path / "w4a16", tensors).linear(LAYER)
    assert (plain.weight_format, plain.block) == ("int4", 4)
    expected = integers * np.repeat(scale, 4, axis=1)
    np.testing.assert_allclose(plain.dequantize(), expected, rtol=1e-6)
    second = {**tensors, f"{LAYER}.weight_scale_2": np.array(0.002, np.float32)}
    rounded = write(tmp_path / "w4a8", second).linear(LAYER)
    np.testing.assert_array_equal(rounded.dequantize(), round_fp8(plain.dequantize(), 0.002))
    assert not np.array_equal(rounded.dequantize(), plain.dequantize())


def test_nvfp4_has_two_levels_of_scales(tmp_path: Path) -> None:
    packed = RANDOM.integers(0, 256, (2, 16)).astype(np.uint8)
    scale = np.array([[1.5, 2], [0.5, 4]]).astype(ml_dtypes.float8_e4m3fn)
    checkpoint = write(
        tmp_path,
        {
            f"{LAYER}.weight": packed,
            f"{LAYER}.weight_scale": scale,
            f"{LAYER}.weight_scale_2": np.array(0.125, np.float32),
        },
    )
    linear = checkpoint.linear(LAYER)
    assert (linear.weight_format, linear.block) == ("nvfp4", 16)
    expected = unpack_nvfp4(packed) * np.repeat(scale.astype(np.float32), 16, axis=1) * 0.125
    np.testing.assert_allclose(linear.dequantize(), expected)


def test_plain_layers_tables_and_norms(tmp_path: Path) -> None:
    weight = RANDOM.normal(size=(2, 3)).astype(ml_dtypes.bfloat16)
    checkpoint = write(
        tmp_path,
        {
            "model.embed_tokens.weight": weight,
            "model.norm.weight": np.ones(3, np.float32),
            f"{LAYER}.weight": weight,
        },
    )
    assert checkpoint.linear_names() == (LAYER,)
    (linear,) = checkpoint.linears()
    assert linear.weight_format == "none"
    np.testing.assert_array_equal(linear.effective_weight(), weight.astype(np.float32))
    assert checkpoint.quantization.quant_algo is None
    assert checkpoint.kv_scales(0) is None


def test_kv_scales_and_the_declaration(tmp_path: Path) -> None:
    prefix = "model.layers.0.self_attn"
    checkpoint = write(
        tmp_path,
        {
            f"{prefix}.k_proj.k_scale": np.array(0.5, np.float32),
            f"{prefix}.v_proj.v_scale": np.array(0.25, np.float32),
        },
    )
    section = {"quant_algo": None, "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": section}))
    scales = checkpoint.kv_scales(0)
    assert scales is not None
    assert (scales.key, scales.value) == (0.5, 0.25)
    assert checkpoint.quantization.kv_cache_quant_algo == "FP8"
    assert checkpoint.quantization.exclude_modules == ("lm_head",)


@pytest.mark.parametrize(
    ("weight", "scale", "text"),
    [
        (np.zeros((4, 8), np.int8), np.ones(3, np.float32), "do not fit"),
        (np.zeros((4, 8), np.int8), np.full(4, np.nan, np.float32), "not finite"),
        (np.zeros((4, 8), np.int8), np.full(4, -1, np.float32), "negative"),
        (np.zeros((2, 8), np.uint8), np.ones((4, 3), np.float32), "do not fit"),
        (np.zeros((4, 8), np.float32), np.ones(4, np.float32), "not understood"),
    ],
)
def test_damaged_scales_are_refused(tmp_path: Path, weight: Any, scale: Any, text: str) -> None:
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.weight_scale": scale}
    with pytest.raises(SpecError, match=text):
        write(tmp_path, tensors).linear(LAYER)


def test_missing_tensors_and_files(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "one", {"a.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(SpecError, match="missing"):
        checkpoint.tensor("b.weight")
    (tmp_path / "two").mkdir()
    with pytest.raises(SpecError, match="safetensors"):
        UnifiedCheckpoint(tmp_path / "two")


@given(st.floats(-2000, 2000, width=32))
def test_round_fp8_is_idempotent_and_saturates(value: float) -> None:
    once = round_fp8(np.array([value], np.float32), 0.5)
    np.testing.assert_array_equal(once, round_fp8(once, 0.5))
    assert abs(float(once[0])) <= 224
    if abs(value) <= 224:
        assert abs(float(once[0]) - value) <= max(abs(value) / 16, 0.5 * 2**-10)
