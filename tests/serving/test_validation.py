"""Live validation on a real Triton: it passes a good model and catches each fault by its check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from toolkit.errors import ValidationFailed
from toolkit.progress import Silent
from toolkit.serving import deploy
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.ports import Endpoints
from toolkit.serving.validate import (
    CHECKS,
    Reference,
    ValidationReport,
    junit_xml,
    validate_live,
    write_junit,
)
from toolkit.spec.models import (
    Batching,
    Deployment,
    Engine,
    KvCache,
    Limits,
    ModelSource,
    NGram,
)

pytestmark = pytest.mark.e2e

DEPLOYMENT = Deployment(
    name="words",
    model=ModelSource(source="./model"),
    engine=Engine(
        limits=Limits(max_batch_size=4, max_input_len=256, max_seq_len=4096),
        kv_cache=KvCache(tokens_per_block=8),
        batching=Batching(max_queue_size=8),
        speculation=NGram(),
    ),
)
FAULTS = {
    "silent": "golden prompts",
    "random": "golden prompts",
    "short-whole": "streaming",
    "never-streams": "streaming",
    "no-reason": "streaming",
    "leak": "isolation",
    "keep-stop-word": "stop words",
    "one-more": "max_tokens",
    "no-limit": "prompt limit",
    "other-refusal": "prompt limit",
    "accepts-anything": "invalid fields",
    "unnamed": "invalid fields",
    "deaf": "cancellation",
    "no-reuse": "kv reuse",
    "no-usage": "kv reuse",
    "no-drafts": "speculation",
    "hopeless-queue": "full queue",
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults") / "fault"


@pytest.fixture(scope="module")
def words(
    plan_for: Callable[..., LaunchPlan], tmp_path_factory: pytest.TempPathFactory, faults: Path
) -> Iterator[deploy.RunningServer]:
    root = tmp_path_factory.mktemp("validated")
    plan = plan_for(root, environment={"WORDS_FAULTS": str(faults)})
    with deploy.start(plan, root / "state", progress=Silent(), tied=True) as server:
        yield server


def validate(
    server: deploy.RunningServer, deployment: Deployment = DEPLOYMENT, *only: str, **more: object
) -> ValidationReport:
    names = frozenset(only) if only else None
    return validate_live(server.endpoints, deployment, progress=Silent(), only=names, **more)  # type: ignore[arg-type]


def test_good_model_passes(words: deploy.RunningServer) -> None:
    report = validate(words)
    failures = {each.name: each.evidence for each in report.failures}
    assert failures == {}
    skipped = {each.name for each in report.results if each.outcome == "skipped"}
    assert skipped == {"greedy agreement", "repository"}
    assert [each.name for each in report.results] == [each.name for each in CHECKS]


@pytest.mark.parametrize(("fault", "check"), FAULTS.items(), ids=FAULTS.keys())
def test_fault_is_caught_by_its_check(
    words: deploy.RunningServer, faults: Path, fault: str, check: str
) -> None:
    faults.write_text(fault)
    try:
        report = validate(words, DEPLOYMENT, check)
    finally:
        faults.unlink()
    assert [each.name for each in report.failures] == [check]
    with pytest.raises(ValidationFailed, match="1 of 1 checks") as caught:
        report.raise_if_failed()
    assert caught.value.exit_code == 5
    assert caught.value.hint


def test_features_that_are_off_are_skipped_by_name(words: deploy.RunningServer) -> None:
    plain = DEPLOYMENT.model_copy(update={"engine": Engine(kv_cache=KvCache(reuse=False))})
    report = validate(words, plain, "kv reuse", "speculation")
    assert {each.name: each.evidence for each in report.results} == {
        "kv reuse": "engine.kv_cache.reuse is off",
        "speculation": "engine.speculation is off",
    }


def test_unsound_repository_is_found_beside_the_live_checks(
    words: deploy.RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "broken/1").mkdir(parents=True)
    (tmp_path / "broken/config.pbtxt").write_text("name: ")
    report = validate(words, DEPLOYMENT, "repository", "readiness", repository=tmp_path)
    assert [each.name for each in report.failures] == ["repository"]
    assert "broken/config.pbtxt" in report.failures[0].evidence
    assert report.results[-1].outcome == "passed"


def test_greedy_agreement_counts_tokens_up_to_the_first_difference(
    words: deploy.RunningServer,
) -> None:
    served = validate_text(words, "hello there")
    tokens = tuple(int(word) for word in served.split())
    good = Reference("hello there", tokens, served)
    bad = Reference("hello there", (*tokens[:6], 0, *tokens[7:]), "another text")

    def tokenize(text: str) -> list[int]:
        return [int(word) for word in text.split()]

    name = "greedy agreement"
    passed = validate(words, DEPLOYMENT, name, references=[good], tokenize=tokenize)
    assert passed.failures == ()
    failed = validate(words, DEPLOYMENT, name, references=[good, bad], tokenize=tokenize)
    assert "75.0% of 24 tokens" in failed.failures[0].evidence
    assert "differs at token 6" in failed.failures[0].evidence
    lenient = validate(
        words,
        DEPLOYMENT,
        name,
        references=[good, bad],
        tokenize=tokenize,
        minimum_agreement=0.7,
    )
    assert lenient.passed


def validate_text(server: deploy.RunningServer, prompt: str) -> str:
    from toolkit.serving.validate.client import Client

    return Client(server.endpoints, server.name).ask(prompt, 12).text


def test_missing_metrics_and_tensors_are_named(
    plan_for: Callable[..., LaunchPlan], tmp_path: Path
) -> None:
    plan = plan_for(tmp_path, environment={"WORDS_FAULT": "metrics"})
    config = plan.repository / "words/config.pbtxt"
    text = config.read_text().replace('name: "num_cached_tokens"', 'name: "cached"')
    config.write_text(
        text.replace('name: "top_k" data_type: TYPE_INT32', 'name: "top_k" data_type: TYPE_FP32')
    )
    with deploy.start(plan, tmp_path / "state", progress=Silent(), tied=True) as server:
        report = validate(server, DEPLOYMENT, "tensor contract", "metrics")
    evidence = {each.name: each.evidence for each in report.failures}
    assert "output num_cached_tokens is missing" in evidence["tensor contract"]
    assert "input top_k is FP32, not INT32" in evidence["tensor contract"]
    assert "nv_trt_llm_request_metrics" in evidence["metrics"]


def test_absent_server_fails_readiness_alone() -> None:
    nowhere = Endpoints("127.0.0.1", 1, 1, 1)
    report = validate_live(nowhere, DEPLOYMENT, progress=Silent())
    outcomes = [(each.name, each.outcome) for each in report.results]
    assert outcomes == [("repository", "skipped"), ("readiness", "failed")]


def test_junit_and_json_tell_the_same(
    words: deploy.RunningServer, faults: Path, tmp_path: Path
) -> None:
    faults.write_text("silent")
    try:
        report = validate(words, DEPLOYMENT, "readiness", "golden prompts", "greedy agreement")
    finally:
        faults.unlink()
    write_junit(report, tmp_path / "ci/junit.xml")
    suite = ElementTree.parse(tmp_path / "ci/junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    cases = {case.get("name"): [part.tag for part in case] for case in suite}
    assert cases["golden prompts"] == ["failure"]
    assert cases["greedy agreement"] == ["skipped"]
    outcomes = {each["name"]: each["outcome"] for each in report.as_json()["checks"]}
    assert outcomes["readiness"] == "passed"
    assert outcomes["golden prompts"] == "failed"
    assert not report.as_json()["passed"]


def test_junit_survives_control_characters() -> None:
    from toolkit.serving.validate.check import Result

    result = Result("a", "b", "failed", "text \x00\x1b \ud800 \ufffe <&>", "hint", 0.1)
    parsed = ElementTree.fromstring(junit_xml(ValidationReport("n", "u", (result,))))
    failure = parsed.find(".//failure")
    assert failure is not None
    assert "<&>" in (failure.get("message") or "")
