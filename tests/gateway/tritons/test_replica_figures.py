"""Capacity and load of one model, from the metrics of a server that may have several."""

from __future__ import annotations

import struct

import pytest
from tritonclient.grpc import service_pb2

from toolkit.gateway.triton import tensors
from toolkit.gateway.triton.capacity import Capacity
from toolkit.gateway.triton.replica import _of
from toolkit.serving.metrics import Load, parse


def families(model: str, slots: int, more: str = "") -> str:
    blocks = "nv_trt_llm_kv_cache_block_metrics"
    labels = f'model="{model}",version="1"{more}'
    return "\n".join(
        (
            f'nv_trt_llm_request_metrics{{request_type="max",{labels}}} {slots}',
            f'nv_trt_llm_request_metrics{{request_type="scheduled",{labels}}} 3',
            f'{blocks}{{kv_cache_block_type="max",{labels}}} 100',
            f'{blocks}{{kv_cache_block_type="used",{labels}}} 25',
            f'{blocks}{{kv_cache_block_type="tokens_per",{labels}}} 32',
        )
    )


@pytest.mark.parametrize(
    ("text", "capacity"),
    [
        (families("chat", 8), Capacity(8, 3200)),
        (families("chat", 8) + "\n" + families("other", 64), Capacity(8, 3200)),
        # NVIDIA's C++ backend names its own model.
        (families("tensorrt_llm", 16), Capacity(16, 3200)),
        # Two engines of one model: twice the room, blocks of the same size.
        (
            families("chat", 8, ',instance="a"') + "\n" + families("chat", 8, ',instance="b"'),
            Capacity(16, 6400),
        ),
        (families("chat", 8).replace("8\n", "NaN\n", 1), None),
        (families("chat", 8).replace("} 100", "} +Inf"), None),
        (families("chat", 8).replace("} 32", "} NaN"), None),
        (families("chat", -1), None),
        ("", None),
        ('nv_trt_llm_request_metrics{request_type="max",model="chat"} 8', None),
    ],
)
def test_capacity(text: str, capacity: Capacity | None) -> None:
    assert Capacity.of(_of(parse(text), "chat")) == capacity


def test_load_is_that_of_the_model() -> None:
    load = Load.of(_of(parse(families("chat", 8) + "\n" + families("other", 8)), "chat"))
    assert (load.running, load.kv_cache_use) == (3, 0.25)


@pytest.mark.parametrize(("told", "cached"), [({"num_cached_tokens": 0}, 0), ({}, None)])
def test_an_engine_that_does_not_tell_cached_tokens_has_not_told_that_there_were_none(
    told: dict[str, int], cached: int | None
) -> None:
    answer = service_pb2.ModelInferResponse()
    for name, value in {"num_input_tokens": 64, "num_output_tokens": 5, **told}.items():
        answer.outputs.add(name=name, datatype="INT32", shape=[1])
        answer.raw_output_contents.append(struct.pack("<i", value))
    usage = tensors.final(answer).usage
    assert (usage.prompt, usage.completion, usage.cached) == (64, 5, cached)
