from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.checkpoint.architecture import Architecture, architecture_of
from toolkit.errors import SpecError, UnsupportedError
from toolkit.quantize.check import check
from toolkit.quantize.formats import KV_FORMATS, WEIGHT_FORMATS
from toolkit.quantize.modules import linear_widths, matches
from toolkit.spec.models import Quantization


def arch(
    hidden: int = 576, inner: int = 1536, heads: int = 9, kv: int = 3, dim: int = 64, **more: object
) -> Architecture:
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": dim,
        "num_hidden_layers": 4,
        "vocab_size": 1000,
        "tie_word_embeddings": True,
        **more,
    }
    return architecture_of(config, {})


def test_block_of_the_sample_model_is_64() -> None:
    assert check(arch(), Quantization(weights="int4_awq")).block_size == 64


@given(
    hidden=st.integers(1, 40).map(lambda n: 16 * n),
    inner=st.integers(1, 90).map(lambda n: 16 * n),
    heads=st.integers(1, 12),
)
def test_chosen_block_divides_every_width_and_none_larger_does(
    hidden: int, inner: int, heads: int
) -> None:
    model = arch(hidden, inner, heads, heads, 16)
    block = check(model, Quantization(weights="int4_awq")).block_size
    assert block is not None
    widths = (hidden, inner, heads * 16)
    assert all(width % block == 0 for width in widths)
    for larger in (32, 64, 128):
        if larger > block:
            assert any(width % larger for width in widths)


def test_no_block_fits() -> None:
    with pytest.raises(UnsupportedError, match="divides the layer widths") as caught:
        check(arch(hidden=100, heads=4, kv=4, dim=25), Quantization(weights="int4_awq"))
    assert "fp8" in str(caught.value.hint)
    assert caught.value.where == "quantization.weights"


def test_block_of_the_user_is_checked_against_the_widths() -> None:
    with pytest.raises(UnsupportedError, match=r"128 does not divide the layer widths 576") as bad:
        check(arch(), Quantization(weights="int4_awq", block_size=128))
    assert "64" in str(bad.value.hint)
    assert check(arch(), Quantization(weights="int4_awq", block_size=32)).block_size == 32


def test_cuda_kernels_take_fewer_blocks() -> None:
    narrow = arch(hidden=96, inner=192, heads=4, kv=4, dim=24)
    assert check(narrow, Quantization(weights="int4_awq")).block_size == 32
    with pytest.raises(UnsupportedError, match="no block size"):
        check(narrow, Quantization(weights="int4_awq"), runtime="pytorch")


def test_excluding_the_awkward_layer_frees_the_block() -> None:
    model = arch(hidden=512, inner=1000, heads=8, kv=8, dim=64)
    assert (
        check(model, Quantization(weights="int4_awq", exclude=("lm_head", "down_proj"))).block_size
        == 128
    )


def test_tensor_parallelism_cuts_the_row_parallel_widths() -> None:
    model = arch(hidden=512, inner=1536, heads=8, kv=8, dim=64)
    assert check(model, Quantization(weights="int4_awq"), tensor=8).block_size == 64


def test_a_format_without_blocks_refuses_one() -> None:
    with pytest.raises(UnsupportedError, match="fp8 has no blocks"):
        check(arch(), Quantization(weights="fp8", block_size=64))


@pytest.mark.parametrize(
    ("weights", "runtime", "capability", "works"),
    [
        ("fp8", "pytorch", 8.6, False),
        ("fp8", "pytorch", 8.9, True),
        ("fp8", "openvino", None, True),
        ("int8_sq", "pytorch", 9.0, False),
        ("int8_sq", "tensorrt", 9.0, True),
        ("nvfp4", "pytorch", 9.0, False),
        ("nvfp4", "openvino", None, False),
    ],
)
def test_hardware_and_runtimes(
    weights: str, runtime: str, capability: float | None, works: bool
) -> None:
    spec = Quantization.model_validate({"weights": weights})
    model = arch(hidden=512, inner=1024, heads=8, kv=8, dim=64)
    if works:
        resolved = check(model, spec, runtime=runtime, compute_capability=capability)  # type: ignore[arg-type]
        assert resolved.weights.name == weights
    else:
        with pytest.raises(UnsupportedError) as caught:
            check(model, spec, runtime=runtime, compute_capability=capability)  # type: ignore[arg-type]
        assert "what would work" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("capability", "runtime", "weights", "kv"),
    [
        (9.0, "pytorch", "fp8", "fp8"),
        (8.0, "pytorch", "int4_awq", "none"),
        (7.5, "tensorrt", "none", "none"),
        (None, "openvino", "fp8", "none"),
    ],
)
def test_auto(capability: float | None, runtime: str, weights: str, kv: str) -> None:
    spec = Quantization(weights="auto", kv_cache="auto")
    model = arch(hidden=512, inner=1024, heads=8, kv=8, dim=64)
    resolved = check(model, spec, runtime=runtime, compute_capability=capability)  # type: ignore[arg-type]
    assert (resolved.weights.name, resolved.kv_cache.name) == (weights, kv)
    again = check(model, resolved.pinned(spec))
    assert (again.weights, again.kv_cache, again.block_size) == (
        resolved.weights, resolved.kv_cache, resolved.block_size)  # fmt: skip


def test_int8_kv_needs_the_tensorrt_checkpoint() -> None:
    spec = Quantization(kv_cache="int8")
    with pytest.raises(UnsupportedError):
        check(arch(), spec)
    assert check(arch(), spec, target="tensorrt_llm").kv_cache.name == "int8"


def test_a_quantized_source_is_refused() -> None:
    done = dataclasses.replace(arch(), quantization="modelopt")
    with pytest.raises(UnsupportedError, match="quantized already"):
        check(done, Quantization(weights="fp8"))
    assert check(done, Quantization()).changes_nothing


@pytest.mark.parametrize(
    ("pattern", "error", "text"),
    [
        ("dwn_proj", SpecError, "did you mean down_proj"),
        ("q_proj", UnsupportedError, "exclude all of"),
        ("*", UnsupportedError, "exclude less"),
    ],
)
def test_exclusions_that_cannot_work(pattern: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        check(arch(), Quantization(weights="fp8", exclude=("lm_head", pattern)))
    assert text in str(caught.value.hint)  # type: ignore[attr-defined]


def test_a_tied_head_must_stay() -> None:
    with pytest.raises(UnsupportedError, match="lm_head"):
        check(arch(), Quantization(weights="fp8", exclude=()))
    untied = arch(tie_word_embeddings=False)
    assert "lm_head" in check(untied, Quantization(weights="fp8", exclude=())).modules


def test_patterns_match_names_and_their_tails() -> None:
    name = "model.layers.10.mlp.down_proj"
    assert all(matches(p, name) for p in ("down_proj", "mlp.*", "model.layers.10.*", "*", name))
    assert not any(matches(p, name) for p in ("proj", "layers.1.*", "mlp", "model"))


def test_modules_are_all_but_the_excluded() -> None:
    resolved = check(arch(), Quantization(weights="fp8", exclude=("lm_head", "layers.0.*")))
    left_out = set(linear_widths(arch())) - set(resolved.modules)
    assert left_out == {
        n for n in linear_widths(arch()) if n.startswith(("model.layers.0.", "lm_"))
    }


def test_limits_default_by_format_and_yield_to_the_user() -> None:
    spec = Quantization.model_validate({"weights": "fp8", "accept": {"kl_divergence": 0.5}})
    limits = check(arch(), spec).limits
    assert limits.kl_divergence == 0.5
    assert limits.top1_agreement == WEIGHT_FORMATS["fp8"].limits.top1_agreement


def test_every_format_of_the_deployment_file_is_known() -> None:
    fields = Quantization.model_json_schema()["properties"]
    assert set(WEIGHT_FORMATS) == set(fields["weights"]["enum"]) - {"auto"}
    assert set(KV_FORMATS) == set(fields["kv_cache"]["enum"]) - {"auto"}


def test_checking_imports_nothing_heavy() -> None:
    code = (
        "import sys, toolkit.quantize, toolkit.quantize.draft, toolkit.quantize.trtllm_export\n"
        "heavy = {'torch', 'transformers', 'modelopt', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
