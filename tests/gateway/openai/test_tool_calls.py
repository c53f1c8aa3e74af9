"""Calls of tools are told from text in every family's form, however the answer is cut up."""

from __future__ import annotations

import random

import chat_templates
import pytest

from toolkit.gateway.openai.template import ChatTemplate
from toolkit.gateway.openai.tools.events import CallArguments, CallStart, Text
from toolkit.gateway.openai.tools.formats import HERMES, LLAMA, MISTRAL, tool_format
from toolkit.gateway.openai.tools.parser import CallParser, ForcedCall
from toolkit.gateway.openai.tools.special import SpecialFilter, SpecialTokens

NAMES = ("weather", "time")


def parts(text, cut):
    """``text`` in pieces: of ``cut`` characters, or of random lengths where it is a generator."""
    if isinstance(cut, int):
        return [text[at : at + cut] for at in range(0, len(text), cut)]
    pieces = []
    while text:
        length = cut.randint(1, 9)
        pieces.append(text[:length])
        text = text[length:]
    return pieces


def read(parser, pieces):
    """What a client would put together: text, and calls by name with their arguments."""
    found, text, calls = [], "", []
    for piece in pieces:
        found += parser.feed(piece)
    found += parser.finish()
    for event in found:
        if isinstance(event, Text):
            text += event.text
        elif isinstance(event, CallStart):
            assert event.index == len(calls)
            calls.append([event.name, ""])
        elif isinstance(event, CallArguments):
            assert event.index == len(calls) - 1
            calls[event.index][1] += event.text
    return text, [tuple(call) for call in calls]


ANSWERS = [
    # Hermes and Qwen.
    (HERMES, "Just text.  ", "Just text.  ", []),
    (
        HERMES,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>',
        "",
        [("weather", '{"city": "Bern"}')],
    ),
    (
        HERMES,
        'Let me see.\n\n<tool_call>{"arguments": {"a": [1, {}], "b": "}{\\"<"}, "name": "time"}'
        '</tool_call>\n<tool_call>\n{"name":"weather","arguments":{}}\n</tool_call>',
        "Let me see.",
        [("time", '{"a": [1, {}], "b": "}{\\"<"}'), ("weather", "{}")],
    ),
    (HERMES, '<tool_call>{"name": "time"}</tool_call>', "", [("time", "{}")]),
    (
        HERMES,
        '<tool_call>{"name": "time", "arguments": "{\\"zone\\": 1}"}</tool_call>',
        "",
        [("time", '{"zone": 1}')],
    ),
    (HERMES, "a < b <tool_call> or not", "a < b <tool_call> or not", []),
    (HERMES, "x <tool_cal", "x <tool_cal", []),
    (HERMES, '<tool_call>{"name": "time", "argu', '<tool_call>{"name": "time", "argu', []),
    (
        HERMES,
        '<tool_call>{"name": "time", "arguments": {"zone": "U',
        "",
        [("time", '{"zone": "U')],
    ),
    (
        HERMES,
        '<tool_call>{"nonsense": 1}</tool_call>',
        '<tool_call>{"nonsense": 1}</tool_call>',
        [],
    ),
    (
        HERMES,
        '<tool_call>{"name": 5, "arguments": {}}',
        '<tool_call>{"name": 5, "arguments": {}}',
        [],
    ),
    (
        HERMES,
        '<tool_call>{"name": "time", "arguments": {}}</tool_call> done',
        " done",
        [("time", "{}")],
    ),
    # Llama 3.
    (
        LLAMA,
        '{"name": "weather", "parameters": {"city": "Bern"}}',
        "",
        [("weather", '{"city": "Bern"}')],
    ),
    (
        LLAMA,
        '\n {"name": "weather", "parameters": {}}; {"name": "time", "parameters": {"z": 1}}',
        "",
        [("weather", "{}"), ("time", '{"z": 1}')],
    ),
    (
        LLAMA,
        '<|python_tag|>{"name": "unheard", "parameters": {"q": true}}',
        "",
        [("unheard", '{"q": true}')],
    ),
    (LLAMA, '{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
    (LLAMA, '{"name": "unheard", "parameters": {}}', '{"name": "unheard", "parameters": {}}', []),
    (LLAMA, "{not json", "{not json", []),
    (LLAMA, 'The format is {"name": "time"}', 'The format is {"name": "time"}', []),
    (LLAMA, "", "", []),
    # Mistral.
    (
        MISTRAL,
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bern"}, "id": "x"}, '
        '{"name": "time", "arguments": {}}]',
        "",
        [("weather", '{"city": "Bern"}'), ("time", "{}")],
    ),
    (
        MISTRAL,
        'Well.[TOOL_CALLS]weather[ARGS]{"a": "["}[TOOL_CALLS]time[CALL_ID]abcdefghi[ARGS]{"b": 1}',
        "Well.",
        [("weather", '{"a": "["}'), ("time", '{"b": 1}')],
    ),
    (MISTRAL, "[TOOL_CALLS] what is this", "[TOOL_CALLS] what is this", []),
    (MISTRAL, "a list: [1, 2]", "a list: [1, 2]", []),
]


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize(("form", "answer", "text", "calls"), ANSWERS)
def test_calls_are_told_from_text(form, answer, text, calls, cut):
    assert read(CallParser(form, NAMES), parts(answer, cut)) == (text, calls)


@pytest.mark.parametrize("seed", range(60))
def test_how_an_answer_is_cut_does_not_matter(seed):
    dice = random.Random(seed)
    alphabet = [
        "<tool_call>",
        "</tool_call>",
        '{"name": "time"',
        ', "arguments": ',
        "{}",
        '"',
        "\\",
    ]
    alphabet += [
        "}",
        "{",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[",
        "]",
        ",",
        ";",
        " ",
        "time",
        "<|python_tag|>",
    ]
    answer = "".join(dice.choices(alphabet, k=25))
    for form in (HERMES, LLAMA, MISTRAL):
        whole = read(CallParser(form, NAMES), [answer])
        assert read(CallParser(form, NAMES), parts(answer, 1)) == whole
        assert read(CallParser(form, NAMES), parts(answer, dice)) == whole


def test_arguments_go_on_while_they_come():
    parser = CallParser(HERMES, NAMES)
    parser.feed('<tool_call>{"name": "time", "arguments": {"zone')
    assert parser.feed('": 1') == [CallArguments(0, '": 1')]


def test_calls_after_the_last_allowed_are_left_out():
    call = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
    assert read(CallParser(HERMES, NAMES, most=1), [call * 3]) == ("", [("time", "{}")])


def test_an_answer_that_has_to_be_calls_needs_no_marker():
    answer = '[{"name": "time", "arguments": {"z": 1}}, {"name": "weather", "arguments": {}}]'
    parser = CallParser(MISTRAL, NAMES, expected=True)
    assert read(parser, parts(answer, 3)) == ("", [("time", '{"z": 1}'), ("weather", "{}")])


def test_a_forced_call_is_its_arguments():
    parser = ForcedCall("time")
    assert read(parser, ['{"zone"', ": 1}"]) == ("", [("time", '{"zone": 1}')])
    assert parser.calls == 1


@pytest.mark.parametrize(("form", "length"), [(MISTRAL, 9), (HERMES, 29)])
def test_ids_are_what_the_familys_template_takes(form, length):
    answer = f'{form.opening}{{"name": "time", "arguments": {{}}}}'
    start = CallParser(form, NAMES).feed(answer)[0]
    assert isinstance(start, CallStart)
    assert len(start.id) == length
    assert start.id.replace("_", "").isalnum()


@pytest.mark.parametrize(
    ("source", "form"),
    [
        (chat_templates.QWEN, HERMES),
        (chat_templates.LLAMA, LLAMA),
        (chat_templates.MISTRAL, MISTRAL),
        (chat_templates.QWEN + "<function=f>", None),
        ("{{ messages }}<tool_call>", None),
        ("{{ tools }}", None),
    ],
)
def test_the_form_is_told_by_the_template(source, form):
    assert tool_format(ChatTemplate(source, {})) == form


def test_no_template_has_no_form():
    assert tool_format(None) is None


@pytest.mark.parametrize("cut", [1, 2, 5, 100])
def test_special_tokens_are_taken_out_of_the_text(cut):
    taken = SpecialFilter(SpecialTokens(["<|eot_id|>", "<|eom_id|>", "<|x"]))
    text = "a <|eot_id|>b <|eo c<|eom_id|> <|"
    pieces = [taken.feed(piece) for piece in parts(text, cut)]
    assert "".join(pieces) + taken.feed("", final=True) == "a b <|eo c <|"
