"""Chat completions, as the official client sees them: on a stand-in, or on a real deployment.

Nothing here depends on what the model says, only on what every model keeps to.
"""

from __future__ import annotations

import asyncio

import pytest

QUESTION = [{"role": "user", "content": "Name three colours of the rainbow."}]
LONG = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 40}]


@pytest.fixture
def ask(client, target):
    """A chat completion of 12 tokens, unless said otherwise."""

    def ask(messages=QUESTION, *, fixed=True, extra=None, **fields):
        fields.setdefault("max_tokens", 12)
        extra_body = {"ignore_eos": True} if fixed else {}
        return client.chat.completions.create(
            model=target.model, messages=messages, extra_body=extra_body | (extra or {}), **fields
        )

    return ask


def text(answer, index=0):
    return answer.choices[index].message.content


def test_an_answer_is_an_assistants_message(ask, target):
    answer = ask()
    assert answer.object == "chat.completion"
    assert answer.model == target.model
    assert answer.id.startswith("chatcmpl-")
    assert len(answer.choices) == 1
    assert answer.choices[0].message.role == "assistant"
    assert isinstance(text(answer), str)
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].logprobs is None


def test_usage_counts_prompt_and_answer(ask):
    usage = ask(max_tokens=9).usage
    assert usage.completion_tokens == 9
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 <= usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


def test_the_prompt_is_what_the_checkpoints_template_writes(ask, sample_model):
    written = sample_model.template.render(QUESTION)
    assert ask().usage.prompt_tokens == len(sample_model.vocabulary.encode(written, special=False))


def test_max_tokens_cuts_the_answer(ask):
    answer = ask(max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


def test_max_completion_tokens_is_its_newer_name(ask):
    assert ask(max_tokens=20, max_completion_tokens=4).usage.completion_tokens == 4


def test_more_tokens_than_the_context_has_are_cut_to_it(ask, target):
    answer = ask(LONG * 4, max_tokens=100_000)
    assert answer.usage.total_tokens == target.max_seq_len
    assert answer.choices[0].finish_reason == "length"


def test_greedy_answers_repeat(ask):
    assert text(ask(temperature=0)) == text(ask(temperature=0))


def test_a_seed_repeats_an_answer(ask):
    assert text(ask(seed=7)) == text(ask(seed=7))


def test_seeds_differ(ask):
    assert len({text(ask(seed=seed, max_tokens=24)) for seed in range(4)}) > 1


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_every_64_bit_seed_is_one(ask, seed):
    assert text(ask(seed=seed)) == text(ask(seed=seed))


def test_the_default_temperature_is_one(ask):
    assert text(ask(seed=3)) == text(ask(seed=3, temperature=1))


@pytest.mark.parametrize("fields", [{"top_p": 0}, {"extra": {"top_k": 1}}])
def test_the_narrowest_sampling_is_greedy(ask, fields):
    assert text(ask(**fields)) == text(ask(temperature=0))


def test_n_answers_come_in_order(ask):
    answer = ask(n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens == 36


def test_the_prompt_of_several_answers_counts_once(ask):
    assert ask(n=4).usage.prompt_tokens == ask().usage.prompt_tokens


def test_answers_of_one_request_differ(ask):
    assert len({choice.message.content for choice in ask(n=4, seed=1, max_tokens=24).choices}) > 1


def test_more_answers_do_not_change_the_first(ask):
    assert text(ask(n=2, seed=11)) == text(ask(seed=11))


def test_a_stop_text_ends_the_answer_before_it(ask):
    whole = text(ask(temperature=0, max_tokens=24))
    stop = whole[len(whole) // 2 :][:4]
    answer = ask(temperature=0, max_tokens=24, stop=stop)
    assert text(answer) == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].stop_reason == stop


def test_the_first_of_several_stop_texts_counts(ask):
    whole = text(ask(temperature=0, max_tokens=24))
    early, late = whole[4:8], whole[-4:]
    answer = ask(temperature=0, max_tokens=24, stop=[late, early, "never to be found"])
    assert text(answer) == whole[: whole.index(early)]


def test_a_system_message_is_part_of_the_prompt(ask):
    told = [{"role": "system", "content": "You answer in one word, whatever is asked."}, *QUESTION]
    assert ask(told).usage.prompt_tokens != ask().usage.prompt_tokens


def test_a_developer_message_is_a_system_message(ask):
    roles = [
        [{"role": role, "content": "Be brief."}, *QUESTION] for role in ("system", "developer")
    ]
    answers = [ask(messages, temperature=0) for messages in roles]
    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens
    assert text(answers[0]) == text(answers[1])


def test_a_conversation_goes_on(ask):
    turns = [*QUESTION, {"role": "assistant", "content": "Red, green, blue."}, *QUESTION]
    assert ask(turns).usage.prompt_tokens > ask().usage.prompt_tokens


def test_content_in_parts_is_their_text(ask):
    parts = [{"type": "text", "text": QUESTION[0]["content"]}]
    plain = ask(temperature=0)
    answer = ask([{"role": "user", "content": parts}], temperature=0)
    assert text(answer) == text(plain)
    assert answer.usage.prompt_tokens == plain.usage.prompt_tokens


def test_an_assistants_turn_may_lack_content_beside_calls(ask):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "red"},
    ]
    assert text(ask(turns)) is not None


@pytest.mark.parametrize("said", ["Grüße, 世界 🌍", "tab\tand\nline", "\x00\x07", "<|im_end|>"])
def test_any_text_may_be_said(ask, said):
    assert ask([{"role": "user", "content": said}]).usage.completion_tokens == 12


def test_log_probabilities_are_those_of_the_text(ask):
    answer = ask(logprobs=True)
    tokens = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace") == text(answer)
    assert all(token.logprob <= 0 for token in tokens)
    assert all(token.top_logprobs == [] for token in tokens)


def test_repeated_prompts_are_found_in_the_cache(ask):
    ask(LONG)
    usage = ask(LONG).usage
    assert usage.prompt_tokens_details.cached_tokens > usage.prompt_tokens // 2


def test_min_tokens_keep_the_answer_going(ask):
    answer = ask(fixed=False, max_tokens=40, extra={"min_tokens": 30}, temperature=0)
    assert answer.usage.completion_tokens >= 30


@pytest.mark.parametrize(
    "fields",
    [
        {"presence_penalty": 1.5},
        {"frequency_penalty": -0.5},
        {"extra": {"repetition_penalty": 1.1}},
        {"extra": {"top_k": -1}},
        {"extra": {"deadline_ms": 60_000}},
        {"extra": {"something_new": [1, 2]}},
        {"user": "someone", "metadata": {"a": "b"}, "safety_identifier": "x"},
        {"logit_bias": {}, "top_logprobs": 0, "store": False, "modalities": ["text"]},
        {"response_format": {"type": "text"}},
        {"tools": [], "tool_choice": "none"},
        {"prompt_cache_key": "k", "parallel_tool_calls": True},
        {"stop": []},
        {"stop": ["", "never to be found"]},
        {"service_tier": "auto"},
    ],
)
def test_fields_that_are_kept_or_mean_nothing_are_accepted(ask, fields):
    assert ask(**fields).usage.completion_tokens == 12


def test_a_request_class_is_chosen_by_service_tier(ask):
    assert ask(service_tier="batch").service_tier == "batch"


def test_no_request_class_is_told_where_none_was_asked_for(ask):
    assert ask().service_tier is None


def test_a_request_class_is_chosen_by_header(ask):
    assert text(ask(extra_headers={"x-request-class": "batch"})) is not None


def test_a_deadline_that_cannot_be_kept_is_told(ask):
    from openai import APIStatusError

    refusal = None
    try:
        answer = ask(extra={"deadline_ms": 1}, max_tokens=500)
    except APIStatusError as error:
        refusal = error
    if refusal is not None:
        # Refused before it waited, or given up before its first token.
        assert refusal.status_code in (429, 504)
        assert int(refusal.response.headers["retry-after"]) >= 0
    else:
        assert answer.choices[0].finish_reason == "length"
        assert answer.choices[0].cut_by == "deadline"


def test_models_are_listed(client, target):
    models = client.models.list().data
    found = next(model for model in models if model.id == target.model)
    assert found.object == "model"
    assert found.max_model_len == target.max_seq_len
    assert "batch" in found.request_classes


def test_one_model_is_described(client, target):
    assert client.models.retrieve(target.model).id == target.model


def test_the_clients_request_id_is_the_servers(ask):
    headers = {"x-request-id": "from-the-client"}
    assert ask(extra_headers=headers)._request_id == "from-the-client"


def test_eight_requests_at_once_all_end(target):
    async def main():
        async with target.async_client() as client:
            return await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model=target.model, messages=QUESTION, max_tokens=4 + number
                    )
                    for number in range(8)
                )
            )

    answers = asyncio.run(main())
    for number, answer in enumerate(answers):
        assert 1 <= answer.usage.completion_tokens <= 4 + number
