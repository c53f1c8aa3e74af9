"""The CPU engine's memory sum against what OpenVINO was seen to take."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_shapes import LLAMA_1B

from toolkit.capacity.host import fit_host
from toolkit.quantize.check import check
from toolkit.spec.models import Engine, Quantization

GIB = 2**30
SMOLLM2 = replace(
    LLAMA_1B,
    hidden_size=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    intermediate_size=1536,
    vocab_size=49152,
    max_position=8192,
)


def weights(dtype: str, form: str = "none") -> int:
    engine = Engine.model_validate(
        {"dtype": dtype, "limits": {"max_seq_len": 2048, "max_input_len": 1024}}
    )
    resolved = check(SMOLLM2, Quantization.model_validate({"weights": form}), runtime="openvino")
    plan = fit_host(engine, resolved, SMOLLM2, available=64 * GIB)
    return next(line.bytes for line in plan.fixed if line.name == "weights")


@pytest.mark.parametrize(("dtype", "measured"), [("float32", 0.918), ("bfloat16", 0.517)])
def test_compiled_weights_are_as_measured(dtype: str, measured: float) -> None:
    # Anonymous memory that compile_model of OpenVINO 2026.4.1 added, SmolLM2-135M, EPYC.
    assert weights(dtype) == pytest.approx(measured * GIB, rel=0.05)


def test_integers_are_not_widened() -> None:
    assert weights("float32", "int4_awq") < 0.4 * weights("float32")
    assert weights("float32", "fp8") == weights("float32")
