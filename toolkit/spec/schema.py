"""The JSON Schemas of the deployment and the fleet file: editors complete and check them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema

from toolkit.spec.fleet import Fleet, FleetModel
from toolkit.spec.models import Deployment

_REFERENCE = {
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    "description": "A value from the environment: ${NAME} or ${NAME:-default}.",
}
_PLACE = {"$ref": "#/$defs/Reference"}
_VALUES = ("integer", "number", "boolean")


def deployment_schema() -> dict[str, object]:
    """The schema (draft 2020-12) of the file as it is written, before references are replaced."""
    return _schema(Deployment, "Deployment of the Triton / TensorRT-LLM toolkit")


def fleet_schema() -> dict[str, object]:
    """The schema of the fleet file, in which a path alone may stand for a model."""
    schema = _schema(Fleet, "Fleet of the Triton / TensorRT-LLM toolkit")
    fields: dict[str, JsonSchemaValue] = schema["properties"]
    entry = {"$ref": f"#/$defs/{FleetModel.__name__}"}
    fields["models"]["items"] = {"anyOf": [entry, {"type": "string", "minLength": 1}]}
    return schema


def _schema(model: type[BaseModel], title: str) -> JsonSchemaValue:
    schema = model.model_json_schema(schema_generator=_Generator)
    definitions = schema.pop("$defs", {})
    definitions["Reference"] = _REFERENCE
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **schema,
        "title": title,
        "$defs": definitions,
    }


def schema_text(schema: dict[str, object] | None = None) -> str:
    """A schema, the deployment file's if none is given, as a file's text."""
    return json.dumps(schema or deployment_schema(), indent=2) + "\n"


class _Generator(GenerateJsonSchema):
    """Lets ``${NAME}`` stand for every number, boolean and fixed choice."""

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        written = super().generate(schema, mode)
        for model in [written, *written.get("$defs", {}).values()]:
            for name, field in model.get("properties", {}).items():
                needed = name in model.get("required", ())
                model["properties"][name] = _as_written(field, needed=needed)
                if "const" in field:  # the tag of a union: the file has to name it
                    model["required"] = [name, *model.get("required", [])]
        return written


def _as_written(field: JsonSchemaValue, *, needed: bool) -> JsonSchemaValue:
    if "$ref" in field:
        # A section's default repeats those of its fields.
        field = {name: value for name, value in field.items() if name != "default"}
        return field if needed else _or_empty(field)
    if "patternProperties" in field:  # names that are free, but not in every letter
        named = {key: _or_empty(value) for key, value in field["patternProperties"].items()}
        return {**field, "patternProperties": named, "additionalProperties": False}
    return _with_reference(field)


def _or_empty(section: JsonSchemaValue) -> JsonSchemaValue:
    """A section all of whose lines are commented out: it means its defaults."""
    if "$ref" not in section:
        return section
    notes = {name: value for name, value in section.items() if name != "$ref"}
    return {**notes, "anyOf": [{"$ref": section["$ref"]}, {"type": "null"}]}


def _with_reference(field: JsonSchemaValue) -> JsonSchemaValue:
    if field.get("type") == "array":
        return {**field, "items": _with_reference(field.get("items", {}))}
    if "anyOf" in field:
        kinds = list(_flat(field["anyOf"]))
        takes = any(_takes_reference(kind) for kind in kinds)
        return {**field, "anyOf": [*kinds, _PLACE]} if takes else field
    if not _takes_reference(field):
        return field
    notes = ("title", "description", "default", "examples")
    outer = {name: field[name] for name in notes if name in field}
    inner = {name: value for name, value in field.items() if name not in notes}
    return {**outer, "anyOf": [inner, _PLACE]}


def _flat(kinds: Iterable[JsonSchemaValue]) -> Iterator[JsonSchemaValue]:
    for kind in kinds:
        if "anyOf" in kind:
            yield from _flat(kind["anyOf"])
        else:
            yield kind


def _takes_reference(field: JsonSchemaValue) -> bool:
    return field.get("type") in _VALUES or "enum" in field or "pattern" in field
