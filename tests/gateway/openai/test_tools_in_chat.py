"""Tools and formats from the request to the answer, with templates of the large families."""

from __future__ import annotations

import asyncio
import json
import shutil

import chat_templates
import pytest
from openai_stand_in import Scripted, model_with, said, serving

from toolkit.gateway.openai import ServedModel, create_app
from toolkit.gateway.openai.template import ChatTemplate
from toolkit.gateway.openai.tools.formats import tool_format

QUESTION = [{"role": "user", "content": "Weather in Bern?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "time"}},
]
HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
LLAMA = '{"name": "weather", "parameters": {"city": "Bern"}}'
MISTRAL = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bern"}}]'


@pytest.fixture
def family(sample_model):
    """The sample model with another family's template."""

    def family(name, **changes):
        source = getattr(chat_templates, name)
        template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
        return model_with(sample_model, template=template, tools=tool_format(template), **changes)

    return family


def run(model, generator, use):
    """``use`` with the official client against the API."""
    from openai import AsyncOpenAI

    async def main():
        async with (
            serving(create_app({model.name: model}, generator)) as port,
            AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0) as c,
        ):
            return await use(c)

    return asyncio.run(main())


def ask(model, answer, *, cut=5, **fields):
    """The answer to QUESTION and the work that it made; ``answer`` comes in small pieces."""
    pieces = [answer[at : at + cut] for at in range(0, len(answer), cut)]
    generator = Scripted(said(*pieces))
    fields = {"messages": QUESTION, "tools": TOOLS, **fields}

    async def use(client):
        return await client.chat.completions.create(model=model.name, **fields)

    return run(model, generator, use), generator.asked[0]


def ask_streamed(model, answer, *, cut=5, **fields):
    """The streamed answer, as the client's own accumulator puts it together."""
    pieces = [answer[at : at + cut] for at in range(0, len(answer), cut)]

    async def use(client):
        manager = client.chat.completions.stream(
            model=model.name, messages=QUESTION, tools=TOOLS, **fields
        )
        async with manager as stream:
            events = [event async for event in stream]
            return events, stream.current_completion_snapshot

    return run(model, Scripted(said(*pieces)), use)


@pytest.mark.parametrize("cut", [1, 7, 1000])
@pytest.mark.parametrize(
    ("name", "answer"), [("QWEN", HERMES), ("LLAMA", LLAMA), ("MISTRAL", MISTRAL)]
)
def test_a_call_is_told_whole_and_streamed(family, name, answer, cut):
    model = family(name)
    whole, _ = ask(model, answer, cut=cut)
    _, streamed = ask_streamed(model, answer, cut=cut)
    for found in (whole, streamed):
        choice = found.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert not choice.message.content
        (call,) = choice.message.tool_calls
        assert (call.type, call.function.name) == ("function", "weather")
        assert json.loads(call.function.arguments) == {"city": "Bern"}
        assert call.id


def test_arguments_are_streamed_while_they_come(family):
    events, _ = ask_streamed(family("QWEN"), HERMES, cut=3)
    deltas = [e for e in events if e.type == "tool_calls.function.arguments.delta"]
    assert len(deltas) > 2


def test_text_before_a_call_is_content(family):
    whole, _ = ask(family("QWEN"), "Let me look.\n" + HERMES)
    assert whole.choices[0].message.content == "Let me look."
    assert whole.choices[0].finish_reason == "tool_calls"


def test_an_answer_without_calls_is_text(family):
    whole, work = ask(family("QWEN"), "It is sunny.")
    assert whole.choices[0].message.content == "It is sunny."
    assert whole.choices[0].finish_reason == "stop"
    assert '"name": "weather"' in work.prompt


def test_calls_that_were_cut_off_are_a_matter_of_length(family):
    generator = Scripted(said(HERMES[:-20], reason="length"))

    async def use(client):
        return await client.chat.completions.create(model="smollm2", messages=QUESTION, tools=TOOLS)

    choice = run(family("QWEN"), generator, use).choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls[0].function.arguments.startswith('{"city')


def test_one_call_at_a_time_where_that_is_wanted(family):
    whole, _ = ask(family("QWEN"), HERMES * 2, parallel_tool_calls=False)
    assert len(whole.choices[0].message.tool_calls) == 1
    both, _ = ask(family("QWEN"), HERMES * 2)
    assert len(both.choices[0].message.tool_calls) == 2


def test_no_tools_are_shown_where_none_may_be_chosen(family):
    whole, work = ask(family("QWEN"), HERMES, tool_choice="none")
    assert "weather" not in work.prompt
    assert whole.choices[0].message.content == HERMES
    assert whole.choices[0].message.tool_calls is None


def test_a_named_tool_is_forced_by_a_guide(family):
    choice = {"type": "function", "function": {"name": "weather"}}
    whole, work = ask(family("QWEN", guided=True), '{"city": "Bern"}', tool_choice=choice)
    assert json.loads(work.sampling.guide.text) == SCHEMA
    assert whole.choices[0].finish_reason == "stop"
    (call,) = whole.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bern"}')


def test_some_tool_is_forced_by_a_guide(family):
    import jsonschema

    answer = (
        '[{"name": "weather", "arguments": {"city": "Bern"}}, {"name": "time", "arguments": {}}]'
    )
    whole, work = ask(family("QWEN", guided=True), answer, tool_choice="required")
    jsonschema.validate(json.loads(answer), json.loads(work.sampling.guide.text))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([], json.loads(work.sampling.guide.text))
    assert [call.function.name for call in whole.choices[0].message.tool_calls] == [
        "weather",
        "time",
    ]
    assert whole.choices[0].finish_reason == "tool_calls"


STRICT = [{"type": "function", "function": {"name": "f", "strict": True}}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "time"}}}, "tool_choice"),
        ({"tools": STRICT}, "tools[0].function.strict"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
    ],
)
def test_what_only_a_guided_model_can_promise_is_refused(family, fields, param):
    from openai import BadRequestError

    with pytest.raises(BadRequestError) as caught:
        ask(family("QWEN"), "x", **fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        (
            {"tool_choice": "required", "response_format": {"type": "json_object"}},
            "response_format",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(family, fields, param):
    from openai import BadRequestError

    with pytest.raises(BadRequestError) as caught:
        ask(family("QWEN", guided=True), "x", **fields)
    assert caught.value.param == param


def test_a_template_that_writes_calls_in_an_unknown_form_is_refused(sample_model):
    from openai import BadRequestError

    template = ChatTemplate("{{ tools }}{{ messages }}", {})
    model = model_with(sample_model, template=template, tools=tool_format(template))
    with pytest.raises(BadRequestError) as caught:
        ask(model, "x")
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("format_", "kind", "text"),
    [
        ({"type": "json_object"}, "json", ""),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "json", ""),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
            "json_schema",
            SCHEMA,
        ),
    ],
)
def test_a_format_is_a_guide_where_the_model_is_guided(family, format_, kind, text):
    _, work = ask(family("QWEN", guided=True), "{}", response_format=format_, tools=[])
    assert work.sampling.guide.kind == kind
    assert (json.loads(work.sampling.guide.text) if text else "") == text


def test_marks_that_are_special_tokens_reach_the_reader_and_no_other_does(
    sample_checkpoint, tmp_path
):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(sample_checkpoint.path / name, tmp_path / name)
    (tmp_path / "chat_template.jinja").write_text(chat_templates.MISTRAL)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    last = max(token["id"] for token in tokenizer["added_tokens"])
    size = max(last, *tokenizer["model"]["vocab"].values()) + 1
    for place, text in enumerate(("[TOOL_CALLS]", "[ARGS]")):
        token = {**tokenizer["added_tokens"][0], "id": size + place, "content": text}
        tokenizer["added_tokens"].append(token)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = ServedModel.load(tmp_path, name="smollm2", max_input_len=1000, max_seq_len=1100)
    whole, work = ask(model, '[TOOL_CALLS]weather[ARGS]{"city": "Bern"}<|im_end|>')
    assert work.skip_special_tokens is False
    assert whole.choices[0].message.content is None
    assert whole.choices[0].message.tool_calls[0].function.arguments == '{"city": "Bern"}'
    _, work = ask(model, "Hello.", tools=[])
    assert work.skip_special_tokens is True


def test_log_probabilities_survive_what_is_held_back(family):
    from openai import AsyncOpenAI

    from toolkit.gateway.work import Final, Piece, Usage

    model = family("QWEN")
    tokens = model.vocabulary.encode(HERMES)

    async def script(work):
        for token in tokens:
            text = model.vocabulary.decode([token])
            yield Piece(text, (token,), (-0.5,))
        yield Final("", usage=Usage(1, len(tokens)))

    async def use(client: AsyncOpenAI):
        stream = await client.chat.completions.create(
            model="smollm2", messages=QUESTION, tools=TOOLS, logprobs=True, stream=True
        )
        return [chunk async for chunk in stream]

    chunks = run(model, Scripted(script), use)
    found = [c.choices[0].logprobs for c in chunks if c.choices and c.choices[0].logprobs]
    assert sum(len(each.content) for each in found) == len(tokens)
