"""What the LLM API's constructor takes, and so what a model.yaml may hold."""

from __future__ import annotations

from functools import cached_property

from pydantic import JsonValue

from toolkit.errors import UnsupportedError
from toolkit.releases.entries import Checked, Entry, lookup
from toolkit.releases.values import Kind, problem

ROOT = "TorchLlmArgs"


class Field(Entry):
    """One field of a configuration class.

    Attributes:
        optional: Null is accepted.
        required: It has no default.
        config: The nested classes of a ``config`` field.
        aliases: Other names that are accepted for it.
        status: Upstream's word for how settled it is.
    """

    name: str
    kind: Kind
    optional: bool = False
    required: bool = False
    default: JsonValue = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    config: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    status: str | None = None
    meaning: str = ""

    def problem(self, value: JsonValue) -> str | None:
        """Why the field does not take ``value``; None if it does."""
        if value is None:
            return None if self.optional else "cannot be null"
        if self.kind == "object":
            return "can only be set from Python"
        return problem(
            self.kind, value, choices=self.choices, minimum=self.minimum, maximum=self.maximum
        )


class ConfigClass(Entry):
    """One class: what a section of model.yaml may hold; unknown keys are refused upstream.

    Attributes:
        checked: How its fields were compared with upstream, where that differs from the section.
        tag: The key and value that choose this class among several, such as ``decoding_type``.
    """

    name: str
    fields: tuple[Field, ...]
    tag: tuple[str, str] | None = None
    checked: Checked | None = None
    meaning: str = ""

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Fields by every name that upstream accepts for them."""
        named = {field.name: field for field in self.fields}
        return {**{alias: f for f in self.fields for alias in f.aliases}, **named}


class LlmApi(Entry):
    """The classes of one release, the constructor's arguments first among them."""

    version: str
    classes: tuple[ConfigClass, ...]

    def config_class(self, name: str) -> ConfigClass:
        """The class called ``name``.

        Raises:
            UnsupportedError: the release does not have it.
        """
        return lookup(
            self.classes,
            name,
            what="LLM API class",
            owner=f"TensorRT-LLM {self.version}",
            where="model.yaml",
        )

    def field(self, path: str, *, config: str | None = None) -> Field:
        """The field at a dotted path such as ``kv_cache_config.enable_block_reuse``.

        Args:
            path: From the constructor's arguments on.
            config: The class to take where a field may hold one of several, such as
                ``NGramDecodingConfig`` below ``speculative_config``; the one without a tag if
                absent.

        Raises:
            UnsupportedError: the release does not have it.
        """
        *above, last = path.split(".")
        owner = self.config_class(ROOT)
        for key in above:
            owner = self._below(owner, self._known(owner, key, path), config, path)
        return self._known(owner, last, path)

    def has(self, path: str, *, config: str | None = None) -> bool:
        """Whether :meth:`field` finds it."""
        try:
            self.field(path, config=config)
        except UnsupportedError:
            return False
        return True

    def _known(self, owner: ConfigClass, key: str, path: str) -> Field:
        if key in owner.by_name:
            return owner.by_name[key]
        return lookup(
            owner.fields,
            key,
            what=f"{owner.name} field",
            owner=f"TensorRT-LLM {self.version}",
            where=f"model.yaml: {path}",
        )

    def _below(
        self, owner: ConfigClass, field: Field, config: str | None, path: str
    ) -> ConfigClass:
        if config in field.config:
            return self.config_class(str(config))
        untagged = [c for c in map(self.config_class, field.config) if c.tag is None]
        if len(untagged) == 1:
            return untagged[0]
        raise UnsupportedError(
            f"{owner.name} field {field.name} holds no single class of fields",
            where=f"model.yaml: {path}",
            hint=f"name one of {', '.join(field.config)}" if field.config else None,
        )
