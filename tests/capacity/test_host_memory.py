"""The CPU engine's memory sum against what OpenVINO was seen to take."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_shapes import LLAMA_1B

from toolkit.capacity.host import fit_host
from toolkit.checkpoint.architecture import Architecture
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


def lines(
    dtype: str, form: str = "none", arch: Architecture = SMOLLM2, draft: Architecture | None = None
) -> dict[str, int]:
    limits = {"max_seq_len": 2048, "max_input_len": 1024, "max_num_tokens": 1024}
    engine = Engine.model_validate({"dtype": dtype, "limits": limits})
    resolved = check(arch, Quantization.model_validate({"weights": form}), runtime="openvino")
    plan = fit_host(engine, resolved, arch, draft=draft, available=64 * GIB)
    return {line.name: line.bytes for line in plan.fixed}


def weights(dtype: str, form: str = "none", arch: Architecture = SMOLLM2) -> int:
    return lines(dtype, form, arch)["weights"]


WIDE = replace(
    SMOLLM2,
    hidden_size=512,
    num_layers=12,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    intermediate_size=3072,
    vocab_size=8192,
)


@pytest.mark.parametrize(
    ("arch", "dtype", "measured"),
    [
        (SMOLLM2, "float32", 1.15),
        (SMOLLM2, "bfloat16", 0.80),
        (WIDE, "float32", 0.64),
        (WIDE, "bfloat16", 0.43),
    ],
    ids=["smollm2-float32", "smollm2-bfloat16", "wide-float32", "wide-bfloat16"],
)
def test_weights_are_as_measured(arch: Architecture, dtype: str, measured: float) -> None:
    # Anonymous memory that compiling and steps of 1 and 8 tokens added, OpenVINO 2026.4.1, EPYC.
    assert weights(dtype, arch=arch) == pytest.approx(measured * GIB, rel=0.1)


@pytest.mark.parametrize(("arch", "measured"), [(SMOLLM2, 55e3), (WIDE, 68e3)])
def test_activations_are_as_measured(arch: Architecture, measured: float) -> None:
    # What steps of 1024 tokens added, for each of them.
    found = lines("float32", arch=arch)["activations"]
    assert found / 1024 == pytest.approx(measured, rel=0.05)


def test_integers_are_not_widened() -> None:
    assert weights("float32", "int4_awq") < 0.4 * weights("float32")
    assert weights("float32", "fp8") == weights("float32")


def test_a_draft_is_held_in_16_bit_whatever_the_target_is() -> None:
    plain = lines("float32", draft=WIDE)["draft weights"]
    assert plain == weights("float32", arch=WIDE)
    assert lines("float32", "int4_awq", draft=WIDE)["draft weights"] == plain
