"""Scenarios: those that ship load, and mistakes are told with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.bench.load import ClosedLoop, OpenLoop
from toolkit.bench.scenario import Scenario, load_scenario, parse_scenario, shipped
from toolkit.bench.workload import Material, PromptFile
from toolkit.errors import SpecError
from toolkit.spec.overrides import from_flags


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_scenarios_load_and_describe_themselves(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.description
    assert scenario.load.loads
    assert next(iter(scenario.workload.sessions(Material()))).turns


def test_there_are_scenarios() -> None:
    assert {"smoke", "throughput", "interactive", "chat", "shared-prefix"} <= set(shipped())


def test_an_empty_scenario_is_all_defaults() -> None:
    assert parse_scenario("", "x") == Scenario() == parse_scenario("stop:\n", "x")


def test_each_level_is_a_load() -> None:
    closed = parse_scenario("load: {type: closed, concurrency: [1, 8], think_time: 2s}", "x")
    assert closed.load.loads == (
        ClosedLoop(concurrency=1, think_time=2.0),
        ClosedLoop(concurrency=8, think_time=2.0),
    )
    single = parse_scenario("load: {type: open, rate: 2, arrivals: burst}", "x")
    assert single.load.loads == (OpenLoop(type="open", rate=2.0, arrivals="burst"),)


def test_flags_are_laid_over_the_file() -> None:
    scenario = load_scenario("smoke", from_flags(["repeats=5", "workload.prompt_tokens=9"]))
    assert scenario.repeats == 5
    assert scenario.workload.model_dump()["prompt_tokens"]["tokens"] == 9


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("repeats: 0", "s.yaml:1:10", "repeats"),
        ("workload:\n  type: independent\n  promt_tokens: 3", "s.yaml:3:3", "promt_tokens"),
        ("workload: {type: nonsense}", "s.yaml:1:18", "nonsense"),
        ("load: {type: closed, concurrency: [1, 0]}", "s.yaml:1:39", "concurrency"),
        ("load: {type: closed, rate: 3}", "s.yaml:1:22", "rate"),
        ("stop: {duration: 3x}", "s.yaml:1:18", "duration"),
        ("- a", "s.yaml:1:1", "sections"),
        ("a: [", "s.yaml:1", ""),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, place: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_scenario(text, "s.yaml")
    assert str(caught.value.where).startswith(place)
    assert words in caught.value.message


def test_lengths_that_contradict_themselves_are_refused() -> None:
    text = (
        "workload:\n  type: independent\n  prompt_tokens: {distribution: uniform, low: 9, high: 3}"
    )
    with pytest.raises(SpecError, match="low"):
        parse_scenario(text, "s.yaml")


def test_an_unknown_scenario_names_those_that_exist() -> None:
    with pytest.raises(SpecError) as caught:
        load_scenario("smoky")
    assert "smoke" in str(caught.value.hint)


def test_a_prompts_file_is_found_beside_its_scenario(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    file = tmp_path / "own.yaml"
    file.write_text("workload: {type: file, path: p.jsonl}")
    workload = load_scenario(str(file)).workload
    assert isinstance(workload, PromptFile)
    assert next(iter(workload.sessions(Material()))).prompt(0, []) == "a"
