"""The fleet file's JSON Schema agrees with the loader."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from toolkit.cli.app import run
from toolkit.spec.document import parse, plain
from toolkit.spec.fleet import Fleet
from toolkit.spec.schema import fleet_schema


def written(text: str) -> Any:
    node = parse(text, "fleet.yaml", environ=None)
    assert node is not None
    return plain(node)


def test_it_is_a_schema_and_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    Draft202012Validator.check_schema(fleet_schema())
    assert run(["schema", "--kind", "fleet"]) == 0
    assert json.loads(capsys.readouterr().out) == fleet_schema()


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("models: [a.yaml, b.yaml]\n", True),
        ("models:\n  - {file: a.yaml, replicas: 2}\n  - b.yaml\n", True),
        ("models: [a.yaml]\ngpus: {type: H100, count: 8}\n", True),
        ("models: [a.yaml]\ngateway: {port: 9000}\n", True),
        ("models: [{replicas: 2}]\n", False),
        ("models: [{file: a.yaml, replicas: 0}]\n", False),
        ("models: [{file: a.yaml, copies: 2}]\n", False),
        ("models: [a.yaml]\ngpu: {type: H100}\n", False),
        ("gpus: {type: H100}\n", False),
    ],
)
def test_it_says_what_the_loader_says(text: str, valid: bool) -> None:
    data = written(text)
    assert Draft202012Validator(fleet_schema()).is_valid(data) is valid
    try:
        Fleet.model_validate(data)
    except ValidationError:
        assert not valid
    else:
        assert valid


def test_references_may_stand_for_numbers() -> None:
    data = written("models: [{file: a.yaml, replicas: '${REPLICAS}'}]\n")
    assert Draft202012Validator(fleet_schema()).is_valid(data)
