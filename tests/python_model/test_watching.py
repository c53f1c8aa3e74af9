"""Cancellations noticed, a dead engine noticed, metrics kept up."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from fake_pb_utils import Handle, MetricFamily
from llm_serving.engine_api import EngineStats, Sampling
from llm_serving.metrics import Metrics
from llm_serving.request import ParsedRequest, Wishes
from llm_serving.sender import Sender, Totals
from llm_serving.settings import Housekeeping, Streaming, load
from llm_serving.stream import Stream
from llm_serving.tokenizer import TextTokenizer
from llm_serving.watch import EngineDeadError, Watch


class Engine:
    """As much of an engine as the watch talks to."""

    def __init__(self) -> None:
        self.cancelled: set[int] = set()
        self.all_cancelled = threading.Event()

    def cancel(self, request_id: int) -> None:
        self.cancelled.add(request_id)
        if len(self.cancelled) == 40:
            self.all_cancelled.set()

    def stats(self) -> EngineStats:
        return EngineStats(running=1)


def watch(engine: Engine, sender: Sender, failures: list[BaseException]) -> Watch:
    settings = Housekeeping(cancellation_period_s=0.001, metrics_period_s=0.001)
    return Watch(settings, engine, sender, Metrics("m", "1"), failures.append)  # type: ignore[arg-type]


def test_every_abandoned_stream_is_found_in_turn(checkpoint: Path) -> None:
    engine, failures = Engine(), []
    sender = Sender(Streaming(), engine.cancel, failures.append)
    tokenizer = TextTokenizer(checkpoint)
    wishes = Wishes(True, (), False, False, "", True)
    parsed = ParsedRequest((1,), Sampling(max_tokens=1), wishes, 0, None)
    for request_id in range(1, 41):
        sender.open(Stream(request_id, parsed, tokenizer, Handle(cancelled=True)))
    watcher = watch(engine, sender, failures)
    watcher.start()
    assert engine.all_cancelled.wait(20)
    watcher.close()
    assert not failures


def test_a_dead_engine_thread_is_a_failure() -> None:
    failed = threading.Event()
    failures: list[BaseException] = []
    watcher = watch(Engine(), Sender(Streaming(), print, print), failures)
    watcher._on_failure = lambda error: (failures.append(error), failed.set())
    watcher.engine_thread = threading.Thread()
    watcher.start()
    assert failed.wait(20)
    assert isinstance(failures[0], EngineDeadError)


def value(family: str, label: str, name: str) -> float:
    labels = tuple(sorted({"model": "m", "version": "1", label: name}.items()))
    return MetricFamily.created[family][labels].value


def test_metrics_follow_the_engine_and_send_only_changes() -> None:
    metrics, totals = Metrics("m", "1"), Totals()
    stats = EngineStats(running=3, waiting=2, blocks_max=8, blocks_used=2, preemptions_total=1)
    metrics.update(stats, totals)
    assert value("nv_trt_llm_request_metrics", "request_type", "active") == 5
    assert value("nv_trt_llm_request_metrics", "request_type", "scheduled") == 3
    assert value("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction") == 0.25
    assert value("toolkit_llm_preemptions_total", "kind", "kv_cache") == 1
    MetricFamily.log.clear()
    metrics.update(stats, totals)
    assert MetricFamily.log == []
    totals.cached_tokens += 5
    metrics.update(stats, totals)
    assert value("toolkit_llm_tokens_total", "kind", "input_cached") == 5
    MetricFamily.log.clear()
    totals.output_tokens += 7
    metrics.update(stats, totals)
    assert MetricFamily.log == [("increment", 7)]


def test_a_new_way_to_end_while_metrics_are_read_does_no_harm() -> None:
    """The sender's thread counts a reason for the first time while the watch goes over them."""
    metrics, totals = Metrics("m", "1"), Totals()
    totals.finished.update(("stop", "length"))
    read = threading.Event()

    def count() -> None:
        while not read.is_set():
            totals.finished["cancelled"] += 1
            del totals.finished["cancelled"]

    counting = threading.Thread(target=count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    counting.start()
    try:
        for _ in range(3000):
            metrics.update(EngineStats(), totals)
    finally:
        read.set()
        counting.join()
        sys.setswitchinterval(interval)


def test_settings_refuse_unknown_fields(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"model_name": "m", "limits": {"max_input_len": 1, "max_seq": 2}}')
    with pytest.raises(ValueError, match=r"settings.json: limits: unknown fields max_seq"):
        load(path)
