"""The transformer as an OpenVINO graph, from the architecture's numbers and its weights.

Llama, Qwen2 and Qwen3 differ in three places only (biases of q, k and v; norms of q and k;
tied embeddings), so one builder serves all. The graph is stateful, with one pair of KV
variables per layer: the form that OpenVINO turns into paged attention when it is loaded.

Shapes: B sequences, T new tokens, P past tokens, H heads, G KV heads, D head size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from toolkit.engine.openvino.rotary import frequencies

if TYPE_CHECKING:
    from toolkit.checkpoint.architecture import Architecture

Node = Any
"""An openvino.Node; the bindings carry no usable type."""


class Weights(Protocol):
    """Where the builder takes constants from."""

    def linear(self, x: Node, module: str) -> Node:
        """``x`` [..., in] through the linear layer ``module`` -> [..., out]."""

    def vector(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A norm's weight."""

    def embedding(self, input_ids: Node) -> Node:
        """Rows of the embedding table for ``input_ids`` [B, T] -> [B, T, hidden]."""

    def lm_head(self, x: Node) -> Node:
        """``x`` [B, T, hidden] -> logits [B, T, vocabulary]."""


def build(arch: Architecture, weights: Weights) -> Any:
    """The whole model: ``input_ids``, ``attention_mask``, ``position_ids``, ``beam_idx`` ->
    ``logits`` [B, T, vocabulary], as an ``openvino.Model``.
    """
    import openvino as ov
    from openvino import opset13 as ops

    input_ids = _parameter("input_ids", [-1, -1], np.int64)
    attention_mask = _parameter("attention_mask", [-1, -1], np.int64)
    position_ids = _parameter("position_ids", [-1, -1], np.int64)
    beam_idx = _parameter("beam_idx", [-1], np.int32)

    hidden = weights.embedding(input_ids)
    cos, sin = rotary_tables(arch, position_ids)
    shared = _Shared(
        batch=ops.gather(ops.shape_of(input_ids), [0], 0),
        mask=causal_mask(input_ids, attention_mask),
        cos=cos,
        sin=sin,
        beam_idx=beam_idx,
    )
    sinks: list[Node] = []
    for layer in range(arch.num_layers):
        prefix = f"model.layers.{layer}"
        normed = rms_norm(hidden, weights.vector(f"{prefix}.input_layernorm.weight"), arch)
        hidden = ops.add(hidden, attention(arch, weights, layer, normed, shared, sinks))
        normed = rms_norm(hidden, weights.vector(f"{prefix}.post_attention_layernorm.weight"), arch)
        hidden = ops.add(hidden, mlp(weights, prefix, normed))
    hidden = rms_norm(hidden, weights.vector("model.norm.weight"), arch)
    logits = ops.result(weights.lm_head(hidden), name="logits")
    logits.output(0).set_names({"logits"})
    inputs = [input_ids, attention_mask, position_ids, beam_idx]
    return ov.Model([logits], sinks, inputs, "decoder")


class _Shared:
    """Nodes that every layer uses."""

    def __init__(self, batch: Node, mask: Node, cos: Node, sin: Node, beam_idx: Node) -> None:
        self.batch = batch
        self.mask = mask
        self.cos = cos
        self.sin = sin
        self.beam_idx = beam_idx


def _parameter(name: str, shape: list[int], dtype: Any) -> Node:
    from openvino import opset13 as ops

    node = ops.parameter(shape, dtype, name=name)
    node.output(0).set_names({name})
    return node


def integers(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A one-dimensional shape, axis list or index for graph operations."""
    return np.array(values, np.int64)


def rms_norm(x: Node, weight: np.ndarray[Any, np.dtype[np.float32]], arch: Architecture) -> Node:
    """Root-mean-square norm over the last axis (Zhang & Sennrich, 2019)."""
    from openvino import opset13 as ops

    square = ops.power(x, np.float32(2.0))
    mean = ops.reduce_mean(square, integers(-1), keep_dims=True)
    inverse = ops.divide(np.float32(1.0), ops.sqrt(ops.add(mean, np.float32(arch.rms_norm_eps))))
    return ops.multiply(ops.multiply(x, inverse), weight.reshape((1,) * 2 + (-1,)))


def rotary_tables(arch: Architecture, position_ids: Node) -> tuple[Node, Node]:
    """Cosine and sine [B, 1, T, D] of the positions [B, T]."""
    from openvino import opset13 as ops

    inverse, factor = frequencies(arch.head_dim, arch.rope_theta, arch.rope_scaling)
    positions = ops.convert(ops.unsqueeze(position_ids, integers(1)), np.float32)
    angles = ops.matmul(inverse.reshape(1, -1, 1), positions, False, False)
    angles = ops.transpose(angles, integers(0, 2, 1))
    both = ops.concat([angles, angles], -1)
    tables = [ops.cos(both), ops.sin(both)]
    if factor != 1.0:
        tables = [ops.multiply(table, np.float32(factor)) for table in tables]
    axis = np.int64(1)
    return ops.unsqueeze(tables[0], axis), ops.unsqueeze(tables[1], axis)


def rotate(x: Node, cos: Node, sin: Node, head_dim: int) -> Node:
    """Rotary position embedding of ``x`` [B, H, T, D], halves convention."""
    from openvino import opset13 as ops

    half, end, step, axis = (
        integers(head_dim // 2),
        integers(2**62),
        integers(1),
        integers(3),
    )
    first = ops.slice(x, integers(0), half, step, axis)
    second = ops.slice(x, half, end, step, axis)
    turned = ops.concat([ops.multiply(second, np.float32(-1.0)), first], -1)
    return ops.add(ops.multiply(x, cos), ops.multiply(turned, sin))


def causal_mask(input_ids: Node, attention_mask: Node) -> Node:
    """True where a query may look: [B, 1, T, P + T].

    Paged attention drops this node on load; it serves readers of the stateful form.
    """
    from openvino import opset13 as ops

    total = ops.gather(ops.shape_of(attention_mask), np.int64(1), np.int64(0))
    new = ops.gather(ops.shape_of(input_ids), np.int64(1), np.int64(0))
    keys = ops.range(np.int64(0), total, np.int64(1), output_type="i64")
    queries = ops.range(ops.subtract(total, new), total, np.int64(1), output_type="i64")
    visible = ops.less_equal(ops.unsqueeze(keys, np.int64(0)), ops.unsqueeze(queries, np.int64(1)))
    padding = ops.not_equal(attention_mask, np.int64(0))
    return ops.logical_and(
        ops.unsqueeze(visible, integers(0, 1)), ops.unsqueeze(padding, integers(1, 2))
    )


def attention(
    arch: Architecture,
    weights: Weights,
    layer: int,
    x: Node,
    shared: _Shared,
    sinks: list[Node],
) -> Node:
    """Grouped-query attention over the layer's KV variables; appends their sinks."""
    from openvino import opset13 as ops

    module = f"model.layers.{layer}.self_attn"
    heads: dict[str, Node] = {}
    for name, count in (("q", arch.num_heads), ("k", arch.num_kv_heads), ("v", arch.num_kv_heads)):
        flat = weights.linear(x, f"{module}.{name}_proj")
        split = ops.reshape(flat, integers(0, 0, count, arch.head_dim), True)
        if arch.qk_norm and name != "v":
            split = rms_norm(split, weights.vector(f"{module}.{name}_norm.weight"), arch)
        heads[name] = ops.transpose(split, integers(0, 2, 1, 3))
    query = rotate(heads["q"], shared.cos, shared.sin, arch.head_dim)
    key = rotate(heads["k"], shared.cos, shared.sin, arch.head_dim)
    keys = _cached(arch, f"layer.{layer}.key", key, shared, sinks)
    values = _cached(arch, f"layer.{layer}.value", heads["v"], shared, sinks)
    context = ops.scaled_dot_product_attention(
        query,
        _repeat_heads(arch, keys, shared),
        _repeat_heads(arch, values, shared),
        shared.mask,
        np.float32(1.0 / math.sqrt(arch.head_dim)),
        causal=False,
    )
    merged = ops.reshape(
        ops.transpose(context, integers(0, 2, 1, 3)),
        integers(0, 0, arch.num_heads * arch.head_dim),
        True,
    )
    return weights.linear(merged, f"{module}.o_proj")


def _cached(arch: Architecture, name: str, new: Node, shared: _Shared, sinks: list[Node]) -> Node:
    import openvino as ov
    from openvino import opset13 as ops
    from openvino.op.util import Variable, VariableInfo

    info = VariableInfo()
    info.data_shape = ov.PartialShape([-1, arch.num_kv_heads, -1, arch.head_dim])
    info.data_type = ov.Type.f32
    info.variable_id = name
    variable = Variable(info)
    shape = ops.concat(
        [shared.batch, integers(arch.num_kv_heads), integers(0), integers(arch.head_dim)], 0
    )
    past = ops.read_value(ops.broadcast(np.float32(0), shape), variable)
    past = ops.gather(past, shared.beam_idx, np.int64(0))
    joined = ops.concat([past, new], 2)
    sinks.append(ops.assign(joined, variable))
    return joined


def _repeat_heads(arch: Architecture, x: Node, shared: _Shared) -> Node:
    """[B, G, S, D] -> [B, H, S, D]: each KV head serves H / G query heads."""
    from openvino import opset13 as ops

    group = arch.num_heads // arch.num_kv_heads
    if group == 1:
        return x
    shape = ops.concat(
        [
            shared.batch,
            integers(arch.num_kv_heads),
            integers(group),
            integers(0),
            integers(arch.head_dim),
        ],
        0,
    )
    wide = ops.broadcast(ops.unsqueeze(x, np.int64(2)), shape, broadcast_spec="BIDIRECTIONAL")
    return ops.reshape(wide, integers(0, arch.num_heads, -1, arch.head_dim), True)


def mlp(weights: Weights, prefix: str, x: Node) -> Node:
    """SwiGLU feed-forward (Shazeer, 2020)."""
    from openvino import opset13 as ops

    gate = ops.swish(weights.linear(x, f"{prefix}.mlp.gate_proj"))
    return weights.linear(
        ops.multiply(gate, weights.linear(x, f"{prefix}.mlp.up_proj")), f"{prefix}.mlp.down_proj"
    )
