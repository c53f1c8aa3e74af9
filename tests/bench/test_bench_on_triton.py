"""The load generator on a real Triton that serves a model which counts truthfully."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from toolkit.bench.endpoint import Protocol, target_at
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.records import Request, RequestRecord, Sampling, clock
from toolkit.bench.runner import Options, run
from toolkit.bench.target import Target
from toolkit.bench.workload import Conversation, Independent
from toolkit.errors import ServerError, SpecError

if TYPE_CHECKING:
    from toolkit.serving.deploy import RunningServer

pytestmark = pytest.mark.e2e
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http-stream", "http")


def target_of(
    server: RunningServer, protocol: Protocol, model: str = "echo-chat", timeout: float = 60
) -> Target:
    url = f"grpc://{server.grpc_url}" if protocol == "grpc" else server.http_url
    return target_at(url, model, protocol, timeout=timeout)


def ask(target: Target, *prompts: str, tokens: int = 6) -> list[RequestRecord]:
    async def work() -> list[RequestRecord]:
        await target.open()
        requests = [
            Request(number, prompt, tokens, clock(), sampling=Sampling())
            for number, prompt in enumerate(prompts)
        ]
        try:
            return list(await asyncio.gather(*map(target.generate, requests)))
        finally:
            await target.close()

    return asyncio.run(work())


@pytest.mark.parametrize("model", ["echo", "echo-chat"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_tells_the_same(
    echo_server: RunningServer, protocol: Protocol, model: str
) -> None:
    (record,) = ask(target_of(echo_server, protocol, model), f"{protocol} {model} grün 3")
    assert record.ok, record.failure
    assert record.text == " w4.0 w4.1 w4.2 w4.3 w4.4 w4.5"
    assert len(record.responses) == (1 if protocol == "http" else 6)
    usage = record.usage
    assert (usage.prompt_tokens, usage.output_tokens) == (4, 6)
    assert (usage.draft_tokens, usage.accepted_draft_tokens) == (12, 6)
    assert usage.finish_reason == "length"
    assert usage.ttft_ms is not None
    assert usage.ttft_ms <= (record.ended - record.request.intended) * 1000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_errors_arrive_with_their_text(echo_server: RunningServer, protocol: Protocol) -> None:
    refused, failed, fine = ask(target_of(echo_server, protocol), "refuse x", "fail x", "a b")
    assert refused.failure
    assert "text_input: refused" in refused.failure.message
    assert failed.failure
    assert "broke on purpose" in failed.failure.message
    assert len(failed.responses) == (0 if protocol == "http" else 2)
    assert fine.ok


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_that_never_comes_times_out_alone(
    echo_server: RunningServer, protocol: Protocol
) -> None:
    silent, fine = ask(target_of(echo_server, protocol, timeout=1.0), "silence", "a b")
    assert silent.failure
    assert silent.failure.kind == "timeout"
    assert fine.ok


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unknown_model_is_a_server_error(echo_server: RunningServer, protocol: Protocol) -> None:
    with pytest.raises(ServerError, match="does not serve nope"):
        ask(target_of(echo_server, protocol, "nope"), "x")


def test_an_address_has_to_fit_the_protocol(echo_server: RunningServer) -> None:
    with pytest.raises(SpecError):
        target_at(echo_server.http_url, "m", "grpc", timeout=1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_load_on_triton_is_counted_to_the_token(
    echo_server: RunningServer, protocol: Protocol
) -> None:
    workload = Independent.model_validate({"prompt_tokens": 12, "output_tokens": 20})
    options = Options(stop=Stop(requests=64, warmup_requests=4), seed=11)
    report = run(target_of(echo_server, protocol), workload, ClosedLoop(concurrency=16), options)
    (point,) = report.points
    (repeat,) = point.repeats
    assert point.errors == ()
    assert repeat.completed == 64
    assert report.tokens_counted_by == "server"
    tokens = point.totals["output_throughput"].value * repeat.window_s
    assert tokens == pytest.approx(64 * 20)
    assert point.distributions["prompt_tokens"].stats["mean"].value == 12
    assert point.totals["draft_acceptance"].value == pytest.approx(0.5)
    per_response = point.totals["tokens_per_response"].value
    assert per_response == pytest.approx(20 if protocol == "http" else 1)


def test_history_of_real_answers_is_found_in_the_servers_cache(
    echo_server: RunningServer,
) -> None:
    talk = Conversation.model_validate(
        {"type": "conversation", "turns": 4, "system_tokens": 0, "output_tokens": 10}
    )
    target = target_of(echo_server, "grpc")
    report = run(target, talk, ClosedLoop(concurrency=4), Options(stop=Stop(requests=32), seed=5))
    # Each later turn's prompt begins with the earlier prompt and the answer to it.
    assert report.points[0].totals["kv_reuse"].value > 0.5
    unrelated = Independent.model_validate({"prompt_tokens": 100, "output_tokens": 4})
    target = target_of(echo_server, "grpc")
    cold = run(
        target, unrelated, ClosedLoop(concurrency=4), Options(stop=Stop(requests=16), seed=6)
    )
    assert cold.points[0].totals["kv_reuse"].value < 0.1


@pytest.mark.parametrize("protocol", ["grpc", "http-stream"])
def test_several_processes_load_one_triton(echo_server: RunningServer, protocol: Protocol) -> None:
    workload = Independent.model_validate({"prompt_tokens": 4, "output_tokens": 5})
    options = Options(stop=Stop(requests=40, warmup_requests=4), processes=2)
    target = target_of(echo_server, protocol)
    (point,) = run(target, workload, ClosedLoop(concurrency=6), options).points
    (repeat,) = point.repeats
    assert (repeat.requests, repeat.completed) == (40, 40)
    assert repeat.client.processes == 2
    assert sum(span.output_tokens for span in repeat.spans) == 200
    assert len({span.intended for span in repeat.spans}) > 6
