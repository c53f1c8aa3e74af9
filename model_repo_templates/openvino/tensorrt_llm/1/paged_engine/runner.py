"""The compiled graph: token ids and block tables in, logits out.

On load OpenVINO's own transformation turns the stateful graph into paged attention; a gather
before the last matrix product then leaves only the rows whose logits are asked for. Inputs of
the paged form, for N tokens of S sequences: ``input_ids`` [N], ``position_ids`` [N],
``past_lens`` [S], ``subsequence_begins`` [S+1], ``block_indices`` [all tables joined],
``block_indices_begins`` [S+1], ``max_context_len`` [], ``sampled_tokens_indices`` [R] ->
``logits`` [R, 1, vocabulary].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation

Logits = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Row:
    """New ``tokens`` of one sequence after ``past`` cached ones.

    ``table`` covers past and new tokens; logits are wanted for the last ``wanted`` tokens.
    """

    tokens: Ordered[int]
    past: int
    table: Ordered[int]
    wanted: int


class Runner:
    """One compiled model on the CPU; ``allocate`` gives it a KV pool before the first ``run``."""

    def __init__(
        self, model: Path, *, kv_precision: str, precision: str, threads: int | None
    ) -> None:
        core = ov.Core()
        graph = core.read_model(model)
        paged_attention_transformation(graph)
        _keep_wanted_rows(graph)
        properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": kv_precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            # Integer weights would otherwise round the activations to 8 bits behind our back.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        self._compiled = core.compile_model(graph, "CPU", properties)
        self._request = self._compiled.create_infer_request()
        self._caches = [
            port
            for port in self._compiled.inputs
            if port.get_any_name().startswith(("key_cache.", "value_cache."))
        ]
        self._pools: list[Any] = []

    @property
    def tokens_per_block(self) -> int:
        """Tokens of one block, fixed by the CPU's paged attention."""
        return int(self._caches[0].get_partial_shape()[2].get_length())

    @property
    def block_bytes(self) -> int:
        """Bytes of one block in all layers."""
        return sum(
            int(ov.Tensor(port.get_element_type(), _pool_shape(port, 1)).get_byte_size())
            for port in self._caches
        )

    @property
    def pool_bytes(self) -> int:
        """Bytes of the KV pool."""
        return sum(int(pool.get_byte_size()) for pool in self._pools)

    def allocate(self, block_count: int) -> None:
        """Make the KV pool, zeroed, so that its memory is really there from the start."""
        for port in self._caches:
            tensor = ov.Tensor(port.get_element_type(), _pool_shape(port, block_count))
            tensor.data.fill(0)
            self._request.set_tensor(port.get_any_name(), tensor)
            self._pools.append(tensor)

    def run(self, rows: Ordered[Row]) -> Logits:
        """Logits [sum of wanted, vocabulary]; the array is valid until the next call."""
        lengths = [len(row.tokens) for row in rows]
        begins = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(lengths, out=begins[1:])
        table_begins = np.zeros(len(rows) + 1, np.int32)
        np.cumsum([len(row.table) for row in rows], out=table_begins[1:])
        past = np.fromiter((row.past for row in rows), np.int32, len(rows))
        self._set("input_ids", np.fromiter(_joined(r.tokens for r in rows), np.int64, begins[-1]))
        positions = _joined(range(r.past, r.past + len(r.tokens)) for r in rows)
        self._set("position_ids", np.fromiter(positions, np.int64, begins[-1]))
        self._set("past_lens", past)
        self._set("subsequence_begins", begins)
        tables = _joined(row.table for row in rows)
        self._set("block_indices", np.fromiter(tables, np.int32, table_begins[-1]))
        self._set("block_indices_begins", table_begins)
        self._set("max_context_len", np.array(int((past + lengths).max()), np.int32))
        ends = begins[1:].tolist()
        wanted = _joined(range(e - r.wanted, e) for e, r in zip(ends, rows, strict=True))
        self._set("sampled_tokens_indices", np.fromiter(wanted, np.int64))
        self._request.infer()
        output: Logits = self._request.get_output_tensor(0).data
        return output.reshape(-1, output.shape[-1])

    def _set(self, name: str, values: Any) -> None:
        self._request.set_tensor(name, ov.Tensor(values))


def _pool_shape(port: Any, blocks: int) -> Any:
    dimensions = port.get_partial_shape()
    return ov.Shape([blocks if d.is_dynamic else d.get_length() for d in dimensions])


def _joined(parts: Any) -> Any:
    return itertools.chain.from_iterable(parts)


def _keep_wanted_rows(graph: Any) -> None:
    """Compute logits only for the rows that ``sampled_tokens_indices`` names."""
    node = graph.get_results()[0]
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    indices = ops.parameter([-1], np.int64, name="sampled_tokens_indices")
    indices.output(0).set_names({"sampled_tokens_indices"})
    wanted = ops.gather(node.input_value(0), indices, np.int64(0))
    node.input(0).replace_source_output(wanted.output(0))
    graph.add_parameters([indices])
    graph.validate_nodes_and_infer_types()
