"""Every failure of docs/field-failures.md is dealt with, and the tests that say so exist."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from model_shapes import LLAMA_8B

from toolkit.engine.pytorch import ModelPaths, llm_arguments
from toolkit.engine.tensorrt import build_commands
from toolkit.quantize.check import check
from toolkit.releases import Runtime, known_releases
from toolkit.repository.contract import load_contract
from toolkit.repository.nvidia.parameters import EnginePaths, engine_parameters
from toolkit.serving.diagnose import diagnose
from toolkit.spec.models import Deployment, Engine, Quantization
from toolkit.spec.schema import schema_text

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "field-failures.md"
WAYS = ("impossible", "refused", "caught", "diagnosed")
ENGINES = [release for release in known_releases() if "tensorrt" in release.runtimes]
PLAIN = check(LLAMA_8B, Quantization())
PATHS = EnginePaths(*map(PurePosixPath, ("/e", "/e/adapters", "/e/tokenizer.json")))


def rows() -> list[list[str]]:
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells[1:] if not set(row[0]) <= set("-")]


def named_tests() -> list[str]:
    return re.findall(r"`(tests/[^`]+)`", TABLE.read_text())


def test_every_row_says_how_and_by_which_test() -> None:
    assert len(rows()) == 17
    for row in rows():
        threads, _, how, _, proof = row
        assert re.search(r"\d{2,}|docs", threads), row
        assert set(re.split(r", | and ", how)) <= set(WAYS), row
        assert "`tests/" in proof, row


@pytest.mark.parametrize("name", sorted(set(named_tests())))
def test_a_named_test_exists(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def deployment(**engine: Any) -> Deployment:
    data = {"name": "chat", "model": {"source": "./m"}, "engine": {"runtime": "tensorrt", **engine}}
    return Deployment.model_validate(data)


def fields(node: Any) -> set[str]:
    """Names of all fields in a JSON Schema."""
    if isinstance(node, list):
        return {name for item in node for name in fields(item)}
    if not isinstance(node, dict):
        return set()
    own = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
    return own | {name for item in node.values() for name in fields(item)}


def test_nothing_in_a_file_turns_the_paged_cache_or_streaming_off() -> None:
    known = fields(json.loads(schema_text()))
    assert "max_batch_size" in known
    wrong = ("kv_cache_type", "decoupled", "gpt_model_type", "batching_type", "padding_removal")
    assert not {name for name in known if name.startswith(wrong)}


def test_clients_send_one_request_each_and_may_stream() -> None:
    contract = load_contract("public")
    assert contract.max_batch_size == 1
    assert contract.decoupled
    assert "stream" in {tensor.name for tensor in contract.inputs}


@pytest.mark.parametrize("release", ENGINES, ids=lambda each: each.version)
def test_every_engine_batches_in_flight_over_a_paged_cache(release: Any) -> None:
    made = deployment()
    (command,) = build_commands(made, LLAMA_8B, release, resolved=PLAIN)
    words = command.argv
    for flag, value in (("kv_cache_type", "paged"), ("remove_input_padding", "enable")):
        assert words[words.index(f"--{flag}") + 1] == value
    told = dict(engine_parameters(made, LLAMA_8B, release, PLAIN, PATHS))
    assert told["gpt_model_type"] == "inflight_fused_batching"


@pytest.mark.parametrize("release", known_releases(), ids=lambda each: each.version)
@pytest.mark.parametrize("runtime", ["tensorrt", "pytorch"])
def test_the_default_policy_admits_only_what_is_sure_to_finish(
    release: Any, runtime: Runtime
) -> None:
    if runtime not in release.runtimes:
        return
    if runtime == "tensorrt":
        made = dict(engine_parameters(deployment(), LLAMA_8B, release, PLAIN, PATHS))
        assert made["batch_scheduler_policy"] == "guaranteed_no_evict"
    else:
        told: Any = llm_arguments(Engine(), PLAIN, LLAMA_8B, release, paths=ModelPaths())
        policy = told["scheduler_config"]["capacity_scheduler_policy"]
        assert policy == "GUARANTEED_NO_EVICT"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("engine-library", "Error Code 1: expecting library version 9.2.0.4 got 9.2.0.5"),
        (
            "decoupled-off",
            "ModelInstanceState: streaming is only supported in decoupled mode",
        ),
    ],
)
def test_what_reaches_the_log_is_named_with_its_mend(name: str, line: str) -> None:
    found = diagnose([line])
    assert found is not None
    assert found.pattern.name == name
    assert found.pattern.hint
