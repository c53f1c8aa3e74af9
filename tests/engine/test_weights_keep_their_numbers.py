"""Each quantized format reaches the graph with the numbers that the checkpoint stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
import transformers

from toolkit.engine.openvino import compile_checkpoint
from toolkit.progress import Silent
from toolkit.quantize.unified import UnifiedCheckpoint

BLOCK = 16
CARRIED = {
    "fp8": "fp8 as float16",
    "int8": "int8 as i8",
    "int4": "int4 as i4 blocks",
    "w4a8": "w4a8 as float16",
    "nvfp4": "nvfp4 as int8 blocks",
}


def pack(kind: str, name: str, weight: Any) -> dict[str, Any]:
    """The tensors of one linear layer in ``kind``, from random numbers of that format."""
    generator = torch.Generator().manual_seed(crc32(name.encode()))
    rows, inputs = weight.shape
    block_scales = torch.rand((rows, inputs // BLOCK), generator=generator) * 0.05 + 0.01
    before = torch.rand(inputs, generator=generator) + 0.5
    nibbles = torch.randint(0, 256, (rows // 2, inputs), generator=generator, dtype=torch.uint8)
    if kind == "fp8":
        values = (torch.randn(rows, inputs, generator=generator) * 60).to(torch.float8_e4m3fn)
        return {"weight": values, "weight_scale": torch.tensor(0.003)}
    if kind == "int8":
        values = torch.randint(-127, 128, (rows, inputs), generator=generator, dtype=torch.int8)
        scale = torch.rand(rows, generator=generator) * 0.002 + 0.001
        return {"weight": values, "weight_scale": scale, "pre_quant_scale": before}
    if kind == "int4":
        return {"weight": nibbles, "weight_scale": block_scales, "pre_quant_scale": before}
    if kind == "w4a8":
        return {
            "weight": nibbles,
            "weight_scale": block_scales,
            "weight_scale_2": torch.tensor(0.0021),
        }
    halves = torch.randint(0, 256, (rows, inputs // 2), generator=generator, dtype=torch.uint8)
    return {
        "weight": halves,
        "weight_scale": (block_scales * 100).to(torch.float8_e4m3fn),
        "weight_scale_2": torch.tensor(0.01),
    }


def write(kind: str, path: Path) -> Any:
    """A quantized checkpoint of random numbers; the plain model it came from."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).float().eval()
    model.save_pretrained(path)
    tensors: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        module = name.removesuffix(".weight")
        if value.dim() == 2 and "embed" not in name and module != "lm_head":
            packed = pack(kind, name, value)
            tensors |= {f"{module}.{part}": packed[part].contiguous() for part in packed}
        else:
            tensors[name] = value.contiguous()
    save_file(tensors, path / "model.safetensors")
    return model


def reference(model: Any, checkpoint: Path, ids: Any) -> Any:
    """Logits in float32 from the checkpoint's dequantized weights."""
    weights = model.state_dict()
    for linear in UnifiedCheckpoint(checkpoint).linears():
        value = torch.from_numpy(np.array(linear.effective_weight(), np.float32))
        weights[f"{linear.name}.weight"].copy_(value)
    with torch.no_grad():
        return model(torch.from_numpy(ids)).logits.numpy()


@pytest.mark.parametrize("kind", CARRIED)
def test_logits_are_those_of_the_dequantized_weights(kind: str, tmp_path: Path) -> None:
    import openvino as ov

    checkpoint, engine = tmp_path / "checkpoint", tmp_path / "engine"
    engine.mkdir()
    model = write(kind, checkpoint)
    compiled = compile_checkpoint(checkpoint, engine, progress=Silent())
    assert compiled.target.carried == {CARRIED[kind]: 14, "none as float32": 1}
    assert json.loads((engine / "engine.json").read_text())["target"]["carried"]

    ids = np.random.default_rng(5).integers(0, 128, (1, 24))
    request = (
        ov.Core()
        .compile_model(
            engine / "openvino_model.xml",
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
        )
        .create_infer_request()
    )
    got = request.infer(
        {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(24).reshape(1, -1),
            "beam_idx": np.zeros(1, np.int32),
        }
    )["logits"]
    expected = reference(model, checkpoint, ids)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(got, expected, atol=2e-3, rtol=2e-3)
