"""Any deployment, written as YAML and loaded, is the same deployment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.spec.loading import load
from toolkit.spec.models import (
    MTP,
    RESERVED_NAMES,
    Acceptance,
    Batching,
    Calibration,
    Deployment,
    DraftModel,
    DraftSource,
    Eagle3,
    Engine,
    Gateway,
    KvCache,
    Limits,
    Lookahead,
    ModelSource,
    NGram,
    Parallelism,
    Ports,
    Quantization,
    RequestClass,
    Scheduling,
    Serving,
    Tls,
)
from toolkit.spec.writing import scalar, to_yaml

TRAPS = (
    *("1e3", "12:30", "no", "y", "~", "0x10", "010", "1_000", "2024-01-01", "true", "null", ".inf"),
    *("${HOME}", "$$", "a: b", "- x", "#", "'", '"', "\\", "<<", "=", "*a", "&a", "!x", "%", "@"),
)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.sampled_from(TRAPS)
fractions = st.floats(0.001, 1)
positive = st.floats(1e-6, 1e9)
sizes = st.integers(0, 2**40) | st.integers(1, 64).map(lambda n: n * 2**30)
names = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name not in RESERVED_NAMES
)
class_names = st.from_regex(r"[a-z]([a-z0-9_-]{0,30}[a-z0-9])?", fullmatch=True)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    seq = draw(st.integers(2, 200_000))
    batch = draw(st.integers(1, 4096))
    return Limits(
        max_batch_size=batch,
        max_input_len=draw(st.integers(1, seq - 1)),
        max_seq_len=seq,
        max_num_tokens=draw(st.integers(batch, 300_000)),
    )


@st.composite
def engines(draw: st.DrawFn) -> Engine:
    bounds = draw(limits())
    whole = bounds.max_num_tokens >= bounds.max_input_len
    return Engine(
        runtime=draw(st.sampled_from(["auto", "tensorrt", "pytorch", "openvino"])),
        release=draw(maybe(st.sampled_from(["1.2", "1.2.1", "1.3.0rc27", "0.17.0.post1"]))),
        limits=bounds,
        parallelism=Parallelism(tensor=draw(st.integers(1, 4)), pipeline=draw(st.integers(1, 3))),
        kv_cache=KvCache(
            reuse=draw(st.booleans()),
            free_memory_fraction=draw(fractions),
            size=draw(maybe(sizes.filter(bool))),
            host_offload=draw(sizes),
            tokens_per_block=draw(st.integers(8, 1024)),
        ),
        batching=Batching(
            policy=draw(st.sampled_from(["guaranteed_no_evict", "max_utilization"])),
            chunked_prefill=not whole or draw(st.booleans()),
            stream_interval=draw(st.integers(1, 64)),
        ),
        speculation=draw(maybe(speculations)),
        threads=draw(maybe(st.integers(1, 1024))),
    )


speculations = st.one_of(
    st.builds(DraftModel, draft=st.builds(DraftSource, source=texts)),
    st.builds(
        DraftModel,
        draft=st.builds(DraftSource, derive_layers=st.integers(1, 9), distill_steps=st.just(0)),
        max_draft_len=st.integers(1, 32),
    ),
    st.builds(NGram, max_matching_ngram_size=st.integers(1, 16)),
    st.builds(Eagle3, source=texts),
    st.builds(Lookahead, window_size=st.integers(1, 32)),
    st.builds(MTP),
)


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    engine = draw(engines())
    replicas = draw(st.integers(1, 2))
    parts = engine.parallelism.tensor * engine.parallelism.pipeline * replicas
    return Deployment(
        name=draw(names),
        model=ModelSource(
            source=draw(texts), allow_pickle=tuple(draw(st.lists(texts, max_size=3)))
        ),
        quantization=Quantization(
            weights=draw(st.sampled_from(["none", "auto", "fp8", "int4_awq"])),
            block_size=draw(maybe(st.integers(16, 1024))),
            exclude=tuple(draw(st.lists(texts, max_size=3))),
            calibration=Calibration(source=draw(texts), samples=draw(st.integers(1, 100_000))),
            accept=Acceptance(
                perplexity_increase=draw(maybe(positive)), top1_agreement=draw(maybe(fractions))
            ),
        ),
        engine=engine,
        serving=Serving(
            gpus=tuple(range(parts)) if engine.runtime != "auto" or parts > replicas else (0,),
            replicas=replicas,
            ports=Ports(http=0, grpc=draw(st.integers(9001, 65535)), metrics=0),
            ready_timeout=draw(positive),
            drain_timeout=draw(st.floats(0, 1e6)),
            default_deadline=draw(maybe(positive)),
        ),
        scheduling=Scheduling(
            classes=draw(
                st.dictionaries(
                    class_names,
                    st.builds(
                        RequestClass,
                        weight=st.integers(1, 1000),
                        ttft_ms=maybe(positive),
                        max_wait=maybe(positive),
                        max_running=maybe(st.integers(1, 99)),
                    ),
                    min_size=1,
                    max_size=4,
                )
            ),
            policy=draw(st.sampled_from(["latency_aware", "fcfs"])),
        ),
        gateway=draw(
            st.builds(
                Gateway,
                keys=maybe(texts),
                tls=maybe(st.builds(Tls, certificate=texts, key=texts)),
                max_body=st.integers(1024, 2**40),
                replicas=st.just(("gpu-2:8001/8002", "[::1]:8001")),
            )
        ),
    )


@given(deployments())
@settings(max_examples=150, deadline=None)
def test_a_written_deployment_reads_back(deployment: Deployment) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deploy.yaml"
        path.write_text(to_yaml(deployment), encoding="utf-8", newline="\n")
        loaded = load(path, environ={}).deployment
    assert loaded == deployment
    assert list(loaded.scheduling.classes) == list(deployment.scheduling.classes)


@given(texts)
@settings(max_examples=300, deadline=None)
def test_older_readers_too_take_a_written_text_for_a_text(text: str) -> None:
    assert yaml.safe_load(f"key: {scalar(text)}") == {"key": text.replace("$", "$$")}


@pytest.mark.parametrize("text", ["hf://owner/name@main", "127.0.0.1", "./a_b.gguf", "30s"])
def test_ordinary_texts_need_no_quotes(text: str) -> None:
    assert scalar(text) == text
