"""Chat templates: found where checkpoints keep them, and rendered as transformers does."""

from __future__ import annotations

import json
import re
from datetime import datetime

import chat_templates
import pytest

from toolkit.errors import SpecError
from toolkit.gateway.openai.messages import as_template_input
from toolkit.gateway.openai.requests import ChatCompletionRequest
from toolkit.gateway.openai.template import ChatTemplate
from toolkit.gateway.work import GatewayError

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather <now> & later, für alle",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Zürich? <b>&"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "20"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}],
    },
]


def plain(turns, *, knows_developer=False):
    request = ChatCompletionRequest.model_validate({"model": "m", "messages": turns})
    return as_template_input(request.messages, knows_developer=knows_developer)


@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("family", ["LLAMA", "QWEN", "MISTRAL"])
def test_families_are_rendered_as_transformers_does(family, tools):
    from transformers.utils import chat_template_utils as utils

    source = getattr(chat_templates, family)
    expected, _ = utils.render_jinja_template(
        [plain(TURNS)],
        tools=tools,
        chat_template=source,
        add_generation_prompt=True,
        **SPECIAL,
    )
    assert ChatTemplate(source, SPECIAL).render(plain(TURNS), tools) == expected[0]


def test_the_sample_checkpoint_is_rendered_as_transformers_does(sample_model, sample_checkpoint):
    from transformers.utils import chat_template_utils as utils

    source = (sample_checkpoint.path / "chat_template.jinja").read_text()
    turns = [{"role": "user", "content": "Hello."}]
    expected, _ = utils.render_jinja_template(
        [turns], chat_template=source, add_generation_prompt=True
    )
    assert sample_model.template.render(turns) == expected[0]


def test_arguments_of_calls_are_objects_to_the_template():
    rendered = ChatTemplate(chat_templates.LLAMA, SPECIAL).render(plain(TURNS), [TOOL])
    assert '{"name": "weather", "parameters": {"city": "Zürich"}}<|eot_id|>' in rendered


def test_arguments_that_are_no_json_reach_the_template_as_they_are():
    call = {**CALL, "function": {"name": "weather", "arguments": "{oops"}}
    turns = [TURNS[1], {"role": "assistant", "content": "x", "tool_calls": [call]}]
    rendered = ChatTemplate(chat_templates.QWEN, SPECIAL).render(plain(turns))
    assert '"arguments": {oops}' in rendered


def test_html_is_not_escaped():
    rendered = ChatTemplate(chat_templates.QWEN, SPECIAL).render(plain(TURNS), [TOOL])
    assert "Weather <now> & later, für alle" in rendered


def test_parts_are_joined_by_line_ends():
    rendered = ChatTemplate(chat_templates.MISTRAL, SPECIAL).render(plain(TURNS))
    assert rendered.endswith("[INST] And\nnow?[/INST]")


@pytest.mark.parametrize("knows", [True, False])
def test_developer_becomes_system_where_the_template_does_not_know_it(knows):
    turns = plain([{"role": "developer", "content": "x"}], knows_developer=knows)
    assert turns[0]["role"] == ("developer" if knows else "system")


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        (chat_templates.LLAMA, {"tools"}),
        (chat_templates.QWEN, {"tools", "enable_thinking"}),
        (chat_templates.MISTRAL, {"tools"}),
        ("{{ messages[0].content }} tools reasoning_effort", set()),
        ("{% if reasoning_effort %}{% endif %}", {"reasoning_effort"}),
    ],
)
def test_what_a_template_looks_at_is_known(source, uses):
    template = ChatTemplate(source, SPECIAL)
    names = ("tools", "enable_thinking", "reasoning_effort")
    assert {name for name in names if template.uses(name)} == uses


def test_further_variables_are_passed_on_but_replace_nothing():
    template = ChatTemplate(chat_templates.QWEN, SPECIAL)
    extra = {"enable_thinking": False, "messages": [], "bos_token": "evil"}
    rendered = template.render(plain(TURNS[1:2]), extra=extra)
    assert rendered.endswith("<think>\n\n</think>\n\n")
    assert "Zürich" in rendered


def test_a_template_may_ask_for_the_date():
    rendered = ChatTemplate("{{ strftime_now('%Y') }}", {}).render([])
    assert rendered == str(datetime.now().astimezone().year)


def test_blocks_leave_no_white_space_behind():
    source = "a\n  {% if true %}\nb\n  {% endif %}\nc{% for x in [1, 2] %}{% break %}{% endfor %}"
    assert ChatTemplate(source, {}).render([]) == "a\nb\nc"


def test_a_refusal_of_the_template_is_the_clients_error():
    with pytest.raises(GatewayError, match="Only user and assistant") as caught:
        ChatTemplate(chat_templates.MISTRAL, SPECIAL).render([{"role": "robot", "content": ""}])
    assert (caught.value.status, caught.value.param) == (400, "messages")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[5].content + 'x' }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{{ messages[0].content | nothing_of_the_kind }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_harms_nobody(source):
    with pytest.raises((GatewayError, SpecError)):
        ChatTemplate(source, {}).render([{"role": "user", "content": "x"}])


def test_an_invalid_template_is_refused_when_it_is_loaded():
    with pytest.raises(SpecError, match="invalid chat template"):
        ChatTemplate("{% if %}", {})


PLACES = {
    "string": {"tokenizer_config.json": {"chat_template": "one"}},
    "list": {
        "tokenizer_config.json": {
            "chat_template": [
                {"name": "default", "template": "one"},
                {"name": "tool_use", "template": "{{ tools }}"},
            ]
        }
    },
    "file": {"tokenizer_config.json": {"chat_template": "other"}, "chat_template.jinja": "one"},
    "legacy": {"chat_template.json": {"chat_template": "one"}},
    "folder": {"chat_template.jinja": "one", "chat_templates/tool_use.jinja": "{{ tools }}"},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_template_is_found_where_checkpoints_keep_it(tmp_path, place):
    for name, content in PLACES[place].items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    template = ChatTemplate.load(tmp_path)
    assert template.render([]) == "one"
    assert template.uses("tools") == (place in ("list", "folder"))
    if template.uses("tools"):
        assert "weather" in template.render([], [TOOL])


def test_a_checkpoint_without_one_has_none(tmp_path):
    assert ChatTemplate.load(tmp_path) is None


@pytest.mark.parametrize("value", [3, [1], [{"name": "default"}]])
def test_a_malformed_place_is_refused(tmp_path, value):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(SpecError, match="chat_template"):
        ChatTemplate.load(tmp_path)


def test_special_tokens_are_read_in_both_forms(tmp_path):
    config = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "eos_token": "</s>",
        "pad_token": None,
        "chat_template": "{{ bos_token }}{{ eos_token }}{{ pad_token }}",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert re.fullmatch("<s></s>", ChatTemplate.load(tmp_path).render([]))
