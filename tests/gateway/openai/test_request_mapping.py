"""What a request comes down to: the work that is asked of the generator, and who may ask."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import httpx
import pytest
from openai_stand_in import Scripted, model_with, said, serving

from toolkit.gateway.guard.admission import Caller
from toolkit.gateway.openai import create_app
from toolkit.gateway.openai.exchange import RECORD
from toolkit.gateway.openai.sampling import seed_of
from toolkit.gateway.work import GatewayError, Sampling

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi."}]}
TEXT = {"model": "smollm2", "prompt": "Hi."}


@dataclass
class Guard:
    """An admission that knows one caller."""

    caller: Caller
    refusal: GatewayError | None = None

    def __post_init__(self):
        self.admitted = []
        self.tokens = []
        self.open = 0

    def authenticate(self, headers):
        if headers.get("authorization") != "Bearer right":
            raise GatewayError(401, "who are you?", code="invalid_api_key")
        return self.caller

    @contextlib.contextmanager
    def _grant(self):
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1

    def used(self, tokens):
        self.tokens.append(tokens)

    def admit(self, caller, model, prompt_tokens, max_tokens):
        if self.refusal:
            raise self.refusal
        self.admitted.append((caller.id, model, prompt_tokens, max_tokens))
        return self._grant()


def post(model, body, *, headers=None, admission=None, pieces=None):
    """The answer, the works that were asked, and the records of the requests."""
    generator, records = Scripted(pieces or said("a", "b", "c")), []
    app = create_app({model.name: model}, generator, admission=admission)

    async def recording(scope, receive, send):
        await app(scope, receive, send)
        records.append(scope[RECORD])

    async def main():
        async with (
            serving(recording) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as http,
        ):
            path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
            return await http.post(path, json=body, timeout=60)

    return asyncio.run(main()), generator.asked, records


def test_chat_defaults_are_openais(sample_model):
    _, (work,), _ = post(sample_model, CHAT)
    assert work.sampling == Sampling(
        max_tokens=sample_model.max_seq_len - len(work.tokens), temperature=1.0
    )
    assert (work.model, work.request_class, work.owner) == ("smollm2", "interactive", "")
    assert work.tokens == sample_model.vocabulary.encode(work.prompt, special=False)
    assert (work.add_special_tokens, work.skip_special_tokens) == (False, True)
    assert (work.deadline_s, work.trace_parent) == (None, None)


def test_completion_defaults_are_openais(sample_model):
    _, (work,), _ = post(sample_model, TEXT)
    assert work.sampling == Sampling(max_tokens=16, temperature=1.0)
    assert (work.prompt, work.add_special_tokens) == ("Hi.", True)


def test_every_sampling_field_arrives(sample_model):
    fields = {
        "max_completion_tokens": 7,
        "min_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "seed": 5,
        "stop": ["a", "", "b"],
        "ignore_eos": True,
        "logprobs": True,
        "deadline_ms": 1500,
    }
    _, (work,), _ = post(sample_model, {**CHAT, **fields})
    assert work.sampling == Sampling(
        max_tokens=7,
        min_tokens=2,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.2,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        seed=5,
        stop=("a", "b"),
        ignore_eos=True,
        log_probs=True,
    )
    assert work.deadline_s == 1.5


@pytest.mark.parametrize("top_k", [-1, 0])
def test_all_tokens_are_no_top_k(sample_model, top_k):
    _, (work,), _ = post(sample_model, {**CHAT, "top_k": top_k})
    assert work.sampling.top_k is None


def test_several_answers_are_works_of_their_own(sample_model):
    _, works, _ = post(sample_model, {**TEXT, "prompt": ["One", "Two"], "n": 2, "seed": 3})
    assert [work.prompt for work in works] == ["One", "One", "Two", "Two"]
    assert len({work.id for work in works}) == 4
    assert [work.sampling.seed for work in works] == [seed_of(3, 0), seed_of(3, 1)] * 2


def test_seeds_are_far_apart_and_fit():
    seeds = {seed_of(seed, choice) for seed in (0, 1, 2**63 - 1) for choice in range(16)}
    assert len(seeds) == 3 * 16
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert 0 <= seed_of(-(2**63), 1) < 2**63
    assert seed_of(7, 0) == 7
    assert seed_of(None, 3) is None


def test_token_ids_of_a_special_token_keep_their_meaning(sample_model):
    ids = [sample_model.vocabulary.special["<|im_start|>"], *sample_model.vocabulary.encode("x")]
    _, (work,), _ = post(sample_model, {**TEXT, "prompt": ids})
    assert list(work.tokens) == ids
    assert list(sample_model.vocabulary.encode(work.prompt, special=work.add_special_tokens)) == ids


def test_a_name_may_stand_for_an_adapter_of_a_deployment(sample_model):
    model = model_with(sample_model, deployment="base", adapter="legal")
    answer, (work,), _ = post(model, CHAT)
    assert (work.model, work.sampling.adapter) == ("base", "legal")
    assert answer.json()["model"] == "smollm2"


def test_a_trace_goes_on(sample_model):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    _, (work,), _ = post(sample_model, CHAT, headers={"traceparent": trace})
    assert work.trace_parent == trace


RIGHT = {"authorization": "Bearer right"}


@pytest.mark.parametrize("path_body", [CHAT, TEXT])
def test_nobody_knows_a_wrong_key(sample_model, path_body):
    guard = Guard(Caller("a"))
    answer, works, _ = post(sample_model, path_body, admission=guard)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert works == []


@pytest.mark.parametrize(
    ("key", "header", "tier", "chosen"),
    [
        (None, None, None, "interactive"),
        (None, None, "auto", "interactive"),
        (None, "batch", None, "batch"),
        (None, "interactive", "batch", "batch"),
        ("batch", None, None, "batch"),
        ("batch", None, "default", "batch"),
        ("batch", "batch", None, "batch"),
        ("of another deployment", None, None, "interactive"),
    ],
)
def test_a_class_comes_from_body_header_or_key(sample_model, key, header, tier, chosen):
    headers = RIGHT | ({"x-request-class": header} if header else {})
    body = CHAT | ({"service_tier": tier} if tier else {})
    guard = Guard(Caller("a", key))
    answer, (work,), _ = post(sample_model, body, headers=headers, admission=guard)
    assert work.request_class == chosen
    assert answer.json().get("service_tier") == (chosen if tier else None)


def test_a_key_of_one_class_speaks_for_no_other(sample_model):
    body, guard = {**CHAT, "service_tier": "interactive"}, Guard(Caller("a", "batch"))
    answer, works, _ = post(sample_model, body, headers=RIGHT, admission=guard)
    assert answer.status_code == 403
    assert works == []


def test_size_is_told_before_and_after(sample_model):
    guard = Guard(Caller("a"))
    body = {**CHAT, "n": 2, "max_tokens": 10}
    _, works, _ = post(sample_model, body, headers=RIGHT, admission=guard)
    prompt = len(works[0].tokens)
    assert guard.admitted == [("a", "smollm2", prompt, 20)]
    assert guard.tokens == [prompt + 6]
    assert guard.open == 0
    assert works[0].owner == "a"


def test_what_is_refused_behind_the_api_costs_a_key_nothing(sample_model):
    async def script(work):
        raise GatewayError(429, "full", code="queue_full", retry_after_s=1)
        yield

    guard = Guard(Caller("a"))
    answer, _, _ = post(sample_model, CHAT, headers=RIGHT, admission=guard, pieces=script)
    assert answer.status_code == 429
    assert (guard.tokens, guard.open) == ([], 0)


@pytest.mark.parametrize(("allowed", "seen"), [((), True), (("smollm2",), True), (("x",), False)])
def test_a_key_sees_the_models_that_it_may_use(sample_model, allowed, seen):
    async def main():
        guard = Guard(Caller("a", models=allowed))
        app = create_app({"smollm2": sample_model}, Scripted([]), admission=guard)
        async with (
            serving(app) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=RIGHT) as http,
        ):
            listed = (await http.get("/v1/models")).json()["data"]
            return listed, (await http.get("/v1/models/smollm2")).status_code

    listed, status = asyncio.run(main())
    assert [model["id"] for model in listed] == (["smollm2"] if seen else [])
    assert status == (200 if seen else 404)


def test_a_limit_that_is_reached_is_told(sample_model):
    refusal = GatewayError(429, "slowly", kind="rate_limit_error", retry_after_s=3)
    guard = Guard(Caller("a"), refusal)
    answer, works, _ = post(sample_model, CHAT, headers=RIGHT, admission=guard)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert works == []


@pytest.mark.parametrize("stream", [True, False])
def test_what_a_request_was_is_left_for_a_log(sample_model, stream):
    body = {**CHAT, "stream": stream}
    _, works, (record,) = post(sample_model, body, pieces=said("a", "b", cached=1))
    assert record.model == "smollm2"
    assert record.request_class == "interactive"
    assert record.stream is stream
    assert record.prompt_tokens == len(works[0].tokens)
    assert (record.completion_tokens, record.cached_tokens) == (2, 1)
    assert record.outcome == "ok"


def test_a_refused_request_is_left_for_a_log(sample_model):
    _, _, (record,) = post(sample_model, {**CHAT, "model": "none"})
    assert record.outcome == "model_not_found"


def test_a_model_without_a_template_has_no_chat(sample_model):
    model = model_with(sample_model, template=None)
    answer, _, _ = post(model, CHAT)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "no_chat_template"
    assert post(model, TEXT)[0].status_code == 200


def test_readiness_is_asked_for(sample_model):
    async def main():
        app = create_app({"smollm2": sample_model}, Scripted([]), ready=lambda: False)
        async with (
            serving(app) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            return (await http.get("/ready")).status_code, (await http.get("/health")).status_code

    assert asyncio.run(main()) == (503, 200)
