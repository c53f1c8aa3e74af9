"""The checkpoint's chat template: somebody else's program, run in a sandbox.

It gets the helpers that the ``transformers`` library gives (``apply_chat_template``):
``raise_exception``, ``strftime_now``, a ``tojson`` that leaves HTML characters alone, loop
controls and the ``generation`` tag.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from toolkit.errors import SpecError
from toolkit.gateway.openai.vocabulary import read_json, special_tokens
from toolkit.gateway.work import GatewayError

DEFAULT = "default"
TOOL_USE = "tool_use"


class ChatTemplate:
    """Writes a conversation as one prompt.

    Args:
        source: Jinja text.
        special: Texts of the special tokens by name, such as ``bos_token``.
        tool_source: Another template for conversations with tools, where there is one.

    Raises:
        SpecError: not a valid template.
    """

    def __init__(
        self, source: str, special: Mapping[str, str], tool_source: str | None = None
    ) -> None:
        environment = _environment()
        self._special = dict(special)
        self._plain = _compiled(environment, source)
        self._tools = self._plain if tool_source is None else _compiled(environment, tool_source)
        self.source = source if tool_source is None else tool_source
        """The template that would be given tools."""
        names = jinja2.meta.find_undeclared_variables(environment.parse(self.source))
        self._names = frozenset(names)

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate | None:
        """The template of the checkpoint or tokenizer in ``folder``, None if it has none.

        Raises:
            SpecError: it is malformed.
        """
        sources = _sources(folder)
        source = sources.get(DEFAULT)
        if source is None:
            return None
        return cls(source, special_tokens(folder), sources.get(TOOL_USE))

    def uses(self, name: str) -> bool:
        """Whether the template looks at the variable ``name``."""
        return name in self._names

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation, ending where the assistant begins.

        Args:
            messages: Each with ``role`` and ``content``.
            tools: Function definitions in OpenAI's form.
            extra: Further variables; they replace none of the template's own.

        Raises:
            GatewayError: 400, the template refuses the conversation or cannot write it.
        """
        template = self._tools if tools else self._plain
        variables = {
            **(extra or {}),
            **self._special,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": True,
        }
        try:
            return template.render(variables)
        except Exception as error:  # whatever a foreign program may do wrong with this input
            raise GatewayError(
                400,
                f"The model's chat template cannot write this conversation: {_line(error)}",
                code="invalid_conversation",
                param="messages",
            ) from error


def _sources(folder: Path) -> dict[str, str]:
    """Templates by name, the newest place first: files, then ``tokenizer_config.json``."""
    found = _configured(read_json(folder / "tokenizer_config.json").get("chat_template"), folder)
    legacy = read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(legacy, str):
        found[DEFAULT] = legacy
    file = folder / "chat_template.jinja"
    if file.is_file():
        found[DEFAULT] = file.read_text(encoding="utf-8")
    for each in sorted(folder.glob("chat_templates/*.jinja")):
        found[each.stem] = each.read_text(encoding="utf-8")
    return found


def _configured(value: Any, folder: Path) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    try:
        return {str(each["name"]): str(each["template"]) for each in value}
    except (TypeError, KeyError) as error:
        raise SpecError(
            "chat_template is neither a text nor a list of named ones",
            where=str(folder / "tokenizer_config.json"),
        ) from error


def _compiled(environment: jinja2.Environment, source: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise SpecError(f"invalid chat template: {error}", where="chat_template") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _Generation(jinja2.ext.Extension):
    """``{% generation %}``: marks the assistant's own text for training; plain text here."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(form: str) -> str:
    # The template's author means the wall clock where it runs.
    return datetime.now().astimezone().strftime(form)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
