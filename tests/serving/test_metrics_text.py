"""Prometheus text as Triton writes it."""

from __future__ import annotations

from toolkit.serving.metrics import Load, parse

TEXT = """\
# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="chat",request_type="active",version="1"} 5
nv_trt_llm_request_metrics{model="chat",request_type="scheduled",version="1"} 3
nv_trt_llm_request_metrics{model="chat",request_type="waiting",version="1"} 2
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="chat"} 200
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="chat"} 50
nv_trt_llm_general_metrics{general_type="iteration_counter",model="chat"} 1.5e+03
nv_cpu_utilization 0.25
odd{text="a \\"quoted\\" , {brace}"} 1
broken line
nan_one NaN
"""


def test_values_by_labels() -> None:
    found = parse(TEXT)
    assert found.value("nv_trt_llm_request_metrics", request_type="waiting") == 2
    assert found.value("nv_trt_llm_request_metrics", model="chat") == 10
    assert found.value("nv_trt_llm_request_metrics", model="other") is None
    assert found.value("nv_cpu_utilization") == 0.25
    assert found.value("odd") == 1
    assert "broken" not in found.families


def test_load_of_an_engine() -> None:
    load = Load.of(parse(TEXT))
    assert (load.running, load.waiting, load.kv_cache_use, load.iterations) == (3, 2, 0.25, 1500)


def test_server_without_engine_metrics_tells_nothing() -> None:
    load = Load.of(parse("nv_cpu_utilization 0.1\n"))
    assert (load.running, load.waiting, load.kv_cache_use, load.iterations) == (None,) * 4
