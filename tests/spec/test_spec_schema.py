"""The JSON Schema agrees with the loader: same fields, same values, editors included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from toolkit.errors import SpecError
from toolkit.spec.document import parse, plain
from toolkit.spec.fields import known_fields
from toolkit.spec.loading import load
from toolkit.spec.models import Deployment
from toolkit.spec.schema import deployment_schema

HEAD = "name: chat\nmodel: {source: ./model}\n"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(deployment_schema())


def written(text: str) -> Any:
    """The file as an editor sees it: references are not replaced."""
    node = parse(text, "deploy.yaml", environ=None)
    assert node is not None
    return plain(node)


def test_it_is_a_schema_of_the_newest_draft() -> None:
    schema = deployment_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert "$id" not in schema


def test_every_object_refuses_unknown_keys_and_every_field_is_described() -> None:
    schema = deployment_schema()
    definitions: Any = schema["$defs"]
    for model in [schema, *definitions.values()]:
        if model.get("type") != "object":
            continue
        assert model["additionalProperties"] is False, model["title"]
        for name, field in model["properties"].items():
            section = {**field, **(field.get("anyOf") or [{}])[0]}.get("$ref", "")
            described = definitions.get(section.rpartition("/")[2], field)
            assert "description" in field or "description" in described or "const" in field, name


def test_it_knows_every_field_of_the_models() -> None:
    schema = deployment_schema()
    definitions: Any = schema["$defs"]
    named = {
        name for model in [schema, *definitions.values()] for name in model.get("properties", {})
    }
    assert named == {field.name for field in known_fields(Deployment)}


GOOD = [
    "",
    "engine: {speculation: {method: ngram, max_draft_len: 3}}",
    "engine: {speculation: {method: draft_model, draft: {derive_layers: 4}}}",
    "engine: {kv_cache: {size: 4GiB, host_offload: 0}}",
    "serving: {gpus: [3], ready_timeout: 2m, default_deadline: 1.5}",
    "scheduling: {classes: {only: {weight: 1}}}",
    "quantization: {exclude: [], accept: {top1_agreement: 1}}",
    "engine:\nquantization:\nscheduling:\n",
    "engine: {limits: , speculation: }",
    "scheduling: {classes: {only: }}",
]
WITH_REFERENCES = [
    "serving: {replicas: '${N:-1}', gpus: ['${GPU}'], ready_timeout: '${T}'}",
    "engine: {kv_cache: {reuse: '${REUSE}'}, runtime: '${RUNTIME:-auto}', threads: '${T}'}",
    "engine: {kv_cache: {size: '${SIZE}'}}",
]
BAD = [
    "engine: {limits: {max_batch_size: 0}}",
    "engine: {limits: {max_batch_size: '3'}}",
    "engine: {speculation: {max_draft_len: 3}}",
    "engine: {speculation: {method: ngram, source: x}}",
    "engine: {runtime: cuda}",
    "engine: {kv_cache: {size: 4G}}",
    "engine: {kv_cache: {size: 0}}",
    "engine: {kv_cache: {reuse: yes}}",
    "serving: {gpus: [0, 0]}",
    "serving: {gpus: [-1]}",
    "serving: {default_deadline: 0}",
    "serving: {default_deadline: 0.0s}",
    "engine: {kv_cache: {size: 0 GiB}}",
    "engine: {speculation: {method: draft_model, draft: }}",
    "scheduling: {classes: }",
    "scheduling: {classes: {Fast: {}}}",
    "scheduling: {classes: {}}",
    "quantization: {accept: {top1_agreement: 1.5}}",
    "port: 3",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_loads_is_valid(text: str, validator: Draft202012Validator, tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_text(HEAD + text)
    load(path, environ={})
    validator.validate(written(HEAD + text))


@pytest.mark.parametrize("text", WITH_REFERENCES)
def test_references_are_valid(text: str, validator: Draft202012Validator) -> None:
    validator.validate(written(HEAD + text))


@pytest.mark.parametrize("text", BAD)
def test_what_does_not_load_is_invalid(
    text: str, validator: Draft202012Validator, tmp_path: Path
) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(SpecError):
        load(path, environ={})
    assert not validator.is_valid(written(HEAD + text))


@pytest.mark.parametrize(
    "text",
    ["name: chat", "name: chat\nmodel:", "model: {source: x}", "name: A\nmodel: {source: x}"],
)
def test_name_and_model_are_required(text: str, validator: Draft202012Validator) -> None:
    assert not validator.is_valid(written(text))
