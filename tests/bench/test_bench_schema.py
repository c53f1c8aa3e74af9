"""What bench writes is what its published schemas say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from simulated import Server, report

from toolkit.bench.compare import compare, parse_gate
from toolkit.bench.schema import comparison_schema, report_schema
from toolkit.cli.app import run


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """A report, and a comparison with a limit that is broken and one that has no figure."""
    one, other = report(Server(), 1, repeats=2), report(Server(fails=0.1), 2, repeats=2)
    gates = [parse_gate("error_share > +1%"), parse_gate("e2e > 10s")]
    return {
        "bench-report": json.loads(other.model_dump_json()),
        "bench-comparison": json.loads(compare(one, other, gates).model_dump_json()),
    }


@pytest.mark.parametrize(
    ("kind", "schema"),
    [("bench-report", report_schema()), ("bench-comparison", comparison_schema())],
)
def test_what_is_written_is_valid(kind: str, schema: Any, written: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert list(validator.iter_errors(written[kind])) == []
    assert schema["properties"]["schema_version"]["default"] == 1
    broken = {**written[kind], "schema_version": "one"}
    assert not validator.is_valid(broken)
    for name in schema["required"]:
        rest = {key: value for key, value in written[kind].items() if key != name}
        assert not validator.is_valid(rest), name


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, schema in (
        ("bench-report", report_schema()),
        ("bench-comparison", comparison_schema()),
    ):
        assert run(["schema", "--kind", kind]) == 0
        assert json.loads(capsys.readouterr().out) == schema
    assert run(["schema", "--kind", "recipe"]) == 2
