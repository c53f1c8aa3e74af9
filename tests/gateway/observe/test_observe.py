"""What ``toolkit observe`` writes, judged by Prometheus' own promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.cli.app import run
from toolkit.gateway.observe.alerts import alerts
from toolkit.gateway.observe.dashboard import ROWS, dashboard
from toolkit.gateway.observe.files import RULE_TESTS, RULES, SCRAPE, Watching, render
from toolkit.gateway.telemetry.metrics import GatewayMetrics

ROOT = Path(__file__).parents[3]
KEPT = ROOT / ".cache/tests/promtool"
WATCHING = Watching("chat", ["localhost:9000"], ["localhost:8002"])


def test_every_metric_that_is_asked_for_exists() -> None:
    queries = [rule.expression for rule in alerts(0.99)]
    queries += [line.query for row in ROWS for panel in row.panels for line in panel.lines]
    asked = set(re.findall(r"\b(toolkit_gateway_\w+|nv_trt_llm_\w+)", " ".join(queries)))
    metrics = GatewayMetrics({}, dict)
    own = {family.name for family in metrics._registry.collect()}
    known = own | {f"{name}_total" for name in own} | {f"{name}_bucket" for name in own}
    known |= {"toolkit_gateway_cost_per_thousand_tokens", *_engine_families()}
    assert asked - known == set()
    assert len(asked) > 10


def _engine_families() -> set[str]:
    template = ROOT / "model_repo_templates/shared/tensorrt_llm/1/llm_serving/metrics.py"
    return set(re.findall(r'"(nv_trt_llm_\w+)"', template.read_text()))


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard("x")["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_every_rule_says_what_to_do_and_has_its_tests(tmp_path: Path) -> None:
    render(WATCHING, tmp_path)
    rules = yaml.safe_load((tmp_path / RULES).read_text())["groups"][0]["rules"]
    tests = yaml.safe_load((tmp_path / RULE_TESTS).read_text())["tests"]
    for rule in rules:
        assert rule["annotations"]["description"]
        outcomes = [
            bool(test["alert_rule_test"][0]["exp_alerts"])
            for test in tests
            if test["alert_rule_test"][0]["alertname"] == rule["alert"]
        ]
        assert sorted(outcomes) == [False, True]


@pytest.mark.parametrize("more", [[], ["--set", "gateway.replicas=[gpu-2:8001/8012, b:1]"]])
def test_the_command_writes_the_files(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text("name: chat\nmodel: {source: ./m}\n")
    output = tmp_path / "out"
    assert run(["observe", str(file), "--output", str(output), "--json", *more]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    jobs = yaml.safe_load((output / SCRAPE).read_text())["scrape_configs"]
    targets = [job["static_configs"][0]["targets"] for job in jobs]
    others = ["gpu-2:8012"] if more else []
    assert targets == [["127.0.0.1:9000"], ["127.0.0.1:8002", *others]]


@pytest.mark.parametrize(("host", "at"), [("::", "[::1]"), ("0.0.0.0", "127.0.0.1")])
def test_an_address_to_listen_on_becomes_one_to_ask(host: str, at: str, tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(
        "name: chat\nmodel: {source: ./m}\n"
        f'gateway: {{host: "{host}", keys: k.yaml}}\nserving: {{host: "{host}"}}\n'
    )
    assert run(["observe", str(file), "--output", str(tmp_path)]) == 0
    jobs = yaml.safe_load((tmp_path / SCRAPE).read_text())["scrape_configs"]
    targets = [job["static_configs"][0]["targets"] for job in jobs]
    assert targets == [[f"{at}:9000"], [f"{at}:8002"]]


@pytest.mark.parametrize(
    ("host", "trust"),
    [
        ("127.0.0.1", {"insecure_skip_verify": True}),
        ("0.0.0.0", {"insecure_skip_verify": True}),
        ("gpu-1", {"ca_file": "/etc/own.pem"}),
    ],
)
def test_a_certificate_that_nobody_else_signed_is_accepted(
    host: str, trust: dict[str, Any], tool: str, tmp_path: Path
) -> None:
    file = tmp_path / "deploy.yaml"
    tls = "{certificate: /etc/own.pem, key: /etc/own.key}"
    gateway = f"gateway: {{host: {host}, keys: k.yaml, tls: {tls}}}"
    file.write_text(f"name: chat\nmodel: {{source: ./m}}\n{gateway}\n")
    assert run(["observe", str(file), "--output", str(tmp_path)]) == 0
    gateway, server = yaml.safe_load((tmp_path / SCRAPE).read_text())["scrape_configs"]
    assert (gateway["scheme"], gateway["tls_config"]) == ("https", trust)
    assert "tls_config" not in server
    done = prove(tool, tmp_path, "check", "config", "--syntax-only", SCRAPE)
    assert done.returncode == 0, done.stdout + done.stderr


def promtool() -> str:
    """The binary of the path, or that of Debian's package, kept beside the tests."""
    found = shutil.which("promtool") or shutil.which(KEPT / "usr/bin/promtool")
    if found or not shutil.which("apt-get"):
        return found or ""
    KEPT.mkdir(parents=True, exist_ok=True)
    get = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "prometheus"]
    for command in (get, ["apt-get", "update"], get):
        subprocess.run(command, cwd=KEPT, capture_output=True, check=False)
        packages = list(KEPT.glob("prometheus_*.deb"))
        if packages:
            subprocess.run(["dpkg", "-x", str(packages[0]), str(KEPT)], check=True)
            packages[0].unlink()
            break
    return shutil.which(KEPT / "usr/bin/promtool") or ""


@pytest.fixture(scope="module")
def tool() -> str:
    found = promtool()
    if not found:
        pytest.skip("promtool is neither here nor to be had from apt")
    return found


def prove(tool: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool, *words], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("objective", [0.95, 0.99, 0.999])
def test_promtool_accepts_rules_and_their_tests(
    objective: float, tool: str, tmp_path: Path
) -> None:
    render(Watching("chat", ["a:1"], ["b:2"], objective), tmp_path)
    for words in (
        ("check", "rules", RULES),
        ("check", "config", SCRAPE),
        ("test", "rules", RULE_TESTS),
    ):
        done = prove(tool, tmp_path, *words)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("broken", ["vector(0) > 1", "vector(1) > 0"])
def test_rules_that_never_fire_or_always_do_fail_their_tests(
    broken: str, tool: str, tmp_path: Path
) -> None:
    render(WATCHING, tmp_path)
    whole: dict[str, Any] = yaml.safe_load((tmp_path / RULES).read_text())
    for rule in whole["groups"][0]["rules"]:
        rule["expr"] = broken
    (tmp_path / RULES).write_text(yaml.safe_dump(whole))
    done = prove(tool, tmp_path, "test", "rules", RULE_TESTS)
    failed = set(re.findall(r"alertname: ?(\w+)", done.stdout + done.stderr))
    assert failed == {rule.name for rule in alerts(0.99)}
