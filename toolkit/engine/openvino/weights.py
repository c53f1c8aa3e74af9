"""A checkpoint's weights as graph constants that keep the stored numbers.

========  =====================================================================================
format    carried as
========  =====================================================================================
none      the checkpoint's own 16- or 32-bit floats
fp8       16-bit floats (every e4m3 value is one); the scale multiplies the layer's output
int8      8-bit integers and float32 scales
int4      4-bit integers in blocks and float32 scales; W4A8's are rounded to fp8 first, as its
          kernel does, and carried like fp8
nvfp4     8-bit integers (twice the e2m1 value) in blocks and float32 scales
========  =====================================================================================

Activations stay in floating point: ``input_scale`` is not applied, so the engine is at least
as exact as the format asks for. ``pre_quant_scale`` multiplies the input, as stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.engine.openvino.graph import Node, integers
from toolkit.quantize.unified import QuantizedLinear, UnifiedCheckpoint, round_fp8

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

EMBEDDING = "model.embed_tokens"
LM_HEAD = "lm_head"


class CheckpointWeights:
    """Implements :class:`toolkit.engine.openvino.graph.Weights` over a unified checkpoint.

    Args:
        checkpoint: where the tensors are.
        tied: whether the output layer is the embedding table.
        on_layer: called after each linear layer, for progress.
    """

    def __init__(
        self, checkpoint: UnifiedCheckpoint, *, tied: bool, on_layer: Callable[[], None]
    ) -> None:
        self._checkpoint = checkpoint
        self._tied = tied
        self._on_layer = on_layer
        self._table: Node | None = None
        self.carried: Counter[str] = Counter()
        """Layers by how they are carried, such as ``fp8 as f16``."""

    def linear(self, x: Node, module: str) -> Node:
        """``x`` [..., in] through the linear layer ``module`` -> [..., out]."""
        result = self._multiply(x, self._checkpoint.linear(module))
        self._on_layer()
        return result

    def vector(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A norm's weight in float32."""
        return self._checkpoint.tensor(name).astype(np.float32)

    def embedding(self, input_ids: Node) -> Node:
        """Rows of the embedding table, in float32."""
        from openvino import opset13 as ops

        self._table = float_constant(self._checkpoint.tensor(f"{EMBEDDING}.weight"))
        return ops.convert(ops.gather(self._table, input_ids, np.int64(0)), np.float32)

    def lm_head(self, x: Node) -> Node:
        """Logits; with tied embeddings the table serves again."""
        from openvino import opset13 as ops

        if self._tied:
            self.carried["embedding and output layer"] += 1
            return ops.matmul(x, ops.convert(self._table, np.float32), False, True)
        return self.linear(x, LM_HEAD)

    def _multiply(self, x: Node, layer: QuantizedLinear) -> Node:
        from openvino import opset13 as ops

        if layer.pre_quant_scale is not None:
            x = ops.multiply(x, layer.pre_quant_scale.reshape(1, 1, -1))
        weight, output_scale = self._weight(layer)
        y = ops.matmul(x, weight, False, True)
        if output_scale is not None:
            y = ops.multiply(y, output_scale)
        if layer.bias is not None:
            y = ops.add(y, layer.bias.astype(np.float32).reshape(1, 1, -1))
        return y

    def _weight(self, layer: QuantizedLinear) -> tuple[Node, Array | None]:
        """The weight's node [out, in] in float32, and what its product is multiplied by."""
        from openvino import opset13 as ops

        kind, scale = layer.weight_format, layer.scale
        if kind == "none" or scale is None:
            self.carried[f"none as {layer.values.dtype.name}"] += 1
            return ops.convert(float_constant(layer.values), np.float32), None
        if kind == "fp8":
            self.carried["fp8 as float16"] += 1
            return _sixteen_bit(layer.values), scale.reshape(1, 1, -1)
        if kind == "int4" and layer.second_scale is not None:
            self.carried["w4a8 as float16"] += 1
            step = layer.second_scale
            rounded = round_fp8(layer.dequantize(), step) / np.float32(step)
            return _sixteen_bit(rounded), np.full((1, 1, 1), step, np.float32)
        if kind == "nvfp4":
            self.carried["nvfp4 as int8 blocks"] += 1
            return _integers((layer.values * 2).astype(np.int8), scale / 2, "i8"), None
        width = "i4" if kind == "int4" else "i8"
        self.carried[f"{kind} as {width}{' blocks' if layer.block else ''}"] += 1
        return _integers(layer.values, scale, width), None


def float_constant(values: Array) -> Node:
    """A constant of ``values``' own float type; bfloat16 stays bfloat16."""
    import openvino as ov
    from openvino import opset13 as ops

    if values.dtype.name != "bfloat16":
        return ops.constant(np.ascontiguousarray(values))
    tensor = ov.Tensor(ov.Type.bf16, ov.Shape(values.shape))
    tensor.data.view(np.uint16)[...] = values.view(np.uint16)
    return ops.constant(tensor)


def _sixteen_bit(values: Array) -> Node:
    from openvino import opset13 as ops

    return ops.convert(ops.constant(values.astype(np.float16)), np.float32)


def _integers(values: Array, scale: Array, width: str) -> Node:
    """``values`` [out, in] times ``scale`` (scalar, [out] or [out, blocks]), in float32."""
    from openvino import opset13 as ops

    rows, inputs = values.shape
    blocks = scale.shape[1] if scale.ndim == 2 else 1
    shape = (rows, blocks, inputs // blocks) if blocks > 1 else (rows, inputs)
    scale_shape = {0: (1, 1), 1: (rows, 1), 2: (rows, blocks, 1)}[scale.ndim]
    constant = _four_bit(values, shape) if width == "i4" else ops.constant(values.reshape(shape))
    scaled = ops.multiply(ops.convert(constant, np.float32), scale.reshape(scale_shape))
    return ops.reshape(scaled, integers(rows, inputs), False) if blocks > 1 else scaled


def _four_bit(values: Array, shape: tuple[int, ...]) -> Node:
    """int8 values in -8..7 packed two to a byte, the first in the low nibble."""
    import openvino as ov
    from openvino import opset13 as ops

    flat = values.reshape(-1).view(np.uint8) & 0x0F
    tensor = ov.Tensor(ov.Type.i4, ov.Shape(shape))
    tensor.data.reshape(-1).view(np.uint8)[...] = flat[0::2] | (flat[1::2] << 4)
    return ops.constant(tensor)
