"""``toolkit releases``, as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from toolkit.cli import app as application
from toolkit.cli.registry import COMMANDS
from toolkit.releases import known_versions, release

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("COLUMNS", "240")

    def go(*arguments: str) -> tuple[int, str, str]:
        code = application.run(["releases", *arguments])
        done = capsys.readouterr()
        return code, done.out, done.err

    return go


def data(call: Call, *arguments: str) -> Any:
    code, out, _ = call(*arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_it_is_among_the_commands() -> None:
    assert "releases" in {command.name for command in COMMANDS}


def test_all_releases_are_listed(call: Call) -> None:
    code, out, _ = call()
    assert code == 0
    assert all(version in out for version in known_versions())
    listed = data(call)
    assert [entry["version"] for entry in listed] == list(known_versions())
    newest_engine = next(entry for entry in listed if entry["version"] == "1.2.1")
    assert newest_engine["runtimes"] == ["tensorrt", "pytorch"]
    assert newest_engine["container"].endswith("26.07-trtllm-python-py3")
    assert newest_engine["checked"]["llm_api"] == "tag"


def test_one_release_is_shown_with_its_sources(call: Call) -> None:
    code, out, _ = call("1.2")
    assert code == 0
    for said in ("TensorRT-LLM 1.2.1", "26.07-trtllm", "w4a8_awq", "DraftTarget", "llm_args.html"):
        assert said in out, said
    assert "--max_prompt_embedding_table_size" not in out, "long parts are shown when asked for"


def test_as_json_a_release_is_complete(call: Call) -> None:
    shown = data(call, "1.2.1")
    known = release("1.2.1")
    assert {flag["name"] for flag in shown["build_flags"]} == {f.name for f in known.build_flags}
    assert type(known).model_validate_json(json.dumps(shown)) == known


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("build-flags", "--max_prompt_embedding_table_size"),
        ("llm-args", "enable_block_reuse"),
        ("triton", "request_output_len"),
        ("metrics", "kv_cache_block_type"),
        ("terms", "engine.kv_cache.reuse"),
    ],
)
def test_a_part_is_shown_alone(call: Call, part: str, said: str) -> None:
    code, out, _ = call("1.2.1", "--show", part)
    assert code == 0
    assert said in out
    assert "26.07-trtllm" not in out


def test_an_unknown_release_is_refused_with_the_nearest(call: Call) -> None:
    code, out, err = call("1.2.3")
    assert code == 2
    assert out == ""
    assert "TensorRT-LLM 1.2.3 is not among the releases" in err
    assert "did you mean 1.2.1" in err


def test_an_unknown_part_is_refused_with_those_there_are(call: Call) -> None:
    code, _, err = call("1.2.1", "--show", "flags")
    assert code == 2
    assert "build-flags" in err
