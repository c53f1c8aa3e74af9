"""Completions and refusals, as the official client sees them: on a stand-in, or for real."""

from __future__ import annotations

import pytest

PROMPT = "The colours of the rainbow are"
QUESTION = [{"role": "user", "content": "Hello."}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def complete(client, target):
    """A completion of 8 tokens, unless said otherwise."""

    def complete(prompt=PROMPT, *, extra=None, **fields):
        fields.setdefault("max_tokens", 8)
        return client.completions.create(
            model=target.model,
            prompt=prompt,
            extra_body={"ignore_eos": True} | (extra or {}),
            **fields,
        )

    return complete


def test_a_text_goes_on(complete, target):
    answer = complete()
    assert answer.object == "text_completion"
    assert answer.model == target.model
    assert answer.id.startswith("cmpl-")
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text


def test_usage_counts_the_prompts_own_tokens(complete, sample_model):
    usage = complete().usage
    assert usage.prompt_tokens == len(sample_model.vocabulary.encode(PROMPT))
    assert usage.completion_tokens == 8


def test_sixteen_tokens_are_the_default(client, target):
    answer = client.completions.create(
        model=target.model, prompt=PROMPT, extra_body={"ignore_eos": True}
    )
    assert answer.usage.completion_tokens == 16


def test_token_ids_are_a_prompt(complete, sample_model):
    ids = list(sample_model.vocabulary.encode(PROMPT))
    from_ids, from_text = complete(ids, temperature=0), complete(temperature=0)
    assert from_ids.choices[0].text == from_text.choices[0].text
    assert from_ids.usage.prompt_tokens == from_text.usage.prompt_tokens == len(ids)


def test_special_token_ids_are_a_prompt(complete, sample_model):
    written = sample_model.template.render(QUESTION)
    ids = list(sample_model.vocabulary.encode(written, special=False))
    assert complete(ids).usage.prompt_tokens == len(ids)


def test_several_prompts_are_answered_in_order(complete):
    answer = complete([PROMPT, "One and one is"], n=2, echo=True)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text.startswith(PROMPT) for choice in answer.choices] == [True] * 2 + [False] * 2


def test_several_prompts_of_token_ids_are_answered(complete, sample_model):
    prompts = [list(sample_model.vocabulary.encode(text)) for text in (PROMPT, "One")]
    answer = complete(prompts)
    assert len(answer.choices) == 2
    assert answer.usage.prompt_tokens == sum(map(len, prompts))


def test_an_echo_is_prompt_and_answer(complete):
    plain, echoed = complete(temperature=0), complete(temperature=0, echo=True)
    assert echoed.choices[0].text == PROMPT + plain.choices[0].text


def test_log_probabilities_are_one_a_token(complete):
    answer = complete(logprobs=0)
    found = answer.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) == 8
    assert found.text_offset[0] == 0
    assert all(value <= 0 for value in found.token_logprobs)
    assert found.top_logprobs is None


def test_a_stop_text_ends_a_text(complete):
    whole = complete(temperature=0, max_tokens=24).choices[0].text
    stop = whole[len(whole) // 2 :][:4]
    answer = complete(temperature=0, max_tokens=24, stop=[stop])
    assert answer.choices[0].text == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_best_of_may_say_what_n_says(complete):
    assert len(complete(n=2, best_of=2).choices) == 2


def test_greedy_texts_repeat(complete):
    assert complete(temperature=0).choices[0].text == complete(temperature=0).choices[0].text


CHAT_REFUSALS = [
    ({"logit_bias": {"50256": -100}}, "logit_bias"),
    ({"logprobs": True, "top_logprobs": 2}, "top_logprobs"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"store": True}, "store"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"verbosity": "low"}, "verbosity"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    ({"tools": [TOOL]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"n": 17}, "n"),
    ({"n": 0}, "n"),
    ({"temperature": 2.5}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"seed": 2**63}, "seed"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": ["x", 1]}, "stop[1]"),
    ({"stream": "yes"}, "stream"),
    ({"service_tier": "first-class"}, "service_tier"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0]"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [*QUESTION, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"extra_body": {"min_tokens": 9, "max_tokens": 5}}, "min_tokens"),
    ({"extra_body": {"top_k": -2}}, "top_k"),
    ({"extra_body": {"repetition_penalty": 0}}, "repetition_penalty"),
    ({"extra_body": {"deadline_ms": 0}}, "deadline_ms"),
    ({"extra_headers": {"x-request-class": "first-class"}}, "x-request-class"),
]


@pytest.mark.parametrize(("fields", "param"), CHAT_REFUSALS)
def test_what_cannot_be_kept_is_refused_by_name(client, target, fields, param):
    from openai import BadRequestError

    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(
            **{"model": target.model, "messages": QUESTION, "max_tokens": 5, **fields}
        )
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert param.split("[")[0] in caught.value.message


COMPLETION_REFUSALS = [
    ({"suffix": " end"}, "suffix"),
    ({"best_of": 3}, "best_of"),
    ({"logprobs": 2}, "logprobs"),
    ({"logprobs": 0, "echo": True}, "echo"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [10**9]}, "prompt"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": ["x"] * 65}, "prompt"),
    ({"prompt": ["x"] * 64, "n": 2}, "n"),
]


@pytest.mark.parametrize(("fields", "param"), COMPLETION_REFUSALS)
def test_texts_that_cannot_be_made_are_refused_by_name(client, target, fields, param):
    from openai import BadRequestError

    with pytest.raises(BadRequestError) as caught:
        client.completions.create(**{"model": target.model, "prompt": PROMPT, **fields})
    assert caught.value.param == param


@pytest.mark.parametrize("words", [3000, 200_000])
def test_a_prompt_that_is_too_long_is_refused_before_it_waits(client, target, words):
    from openai import BadRequestError

    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(
            model=target.model, messages=[{"role": "user", "content": "word " * words}]
        )
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


def test_token_ids_that_are_not_those_of_their_text_are_refused(client, target, sample_model):
    from openai import BadRequestError

    letters = [i for letter in "rainbow" for i in sample_model.vocabulary.encode(letter)]
    with pytest.raises(BadRequestError) as caught:
        client.completions.create(model=target.model, prompt=letters)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("format_", ["json_object", "json_schema"])
def test_a_format_needs_a_guided_model(client, target, format_):
    from openai import BadRequestError

    if target.guided:
        pytest.skip("this deployment guides")
    wanted = {"type": format_}
    if format_ == "json_schema":
        wanted["json_schema"] = {"name": "answer", "schema": {"type": "object"}}
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(
            model=target.model, messages=QUESTION, response_format=wanted
        )
    assert caught.value.param == "response_format"


def test_another_model_is_not_found(client):
    from openai import NotFoundError

    with pytest.raises(NotFoundError) as caught:
        client.chat.completions.create(model="gpt-nowhere", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-nowhere")


def test_images_are_refused_by_name(client, target):
    from openai import BadRequestError

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(
            model=target.model, messages=[{"role": "user", "content": [image]}]
        )
    assert caught.value.param == "messages[0].content[0].type"
    assert caught.value.code == "unsupported_parameter"
