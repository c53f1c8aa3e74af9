"""Write everything that Prometheus and Grafana need for some deployments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from toolkit.gateway.observe.alerts import Alert, alerts
from toolkit.gateway.observe.dashboard import dashboard

RULES = "alerts.yml"
RULE_TESTS = "alerts_test.yml"
SCRAPE = "prometheus.yml"
DASHBOARD = "dashboard.json"

_LOOPBACK = ("127.", "[::1]:", "localhost:")


@dataclass(frozen=True)
class Watching:
    """What to watch: ``host:port`` of gateways and of Tritons' metrics.

    ``objective`` is the share of requests that has to be good, 0 to 1. ``certificate`` is the file
    that the gateways serve HTTPS with; None: they serve HTTP.
    """

    name: str
    gateways: Sequence[str]
    servers: Sequence[str]
    objective: float = 0.99
    certificate: Path | None = None


def render(watching: Watching, folder: Path) -> list[Path]:
    """Write the files; those that are there already are replaced. Returns their paths."""
    rules = alerts(watching.objective)
    contents = {
        RULES: _yaml(_rules(rules)),
        RULE_TESTS: _yaml(_tests(rules)),
        SCRAPE: _yaml(_scrape(watching)),
        DASHBOARD: json.dumps(dashboard(f"LLM serving: {watching.name}"), indent=1) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in contents.items():
        path = folder / name
        temporary = path.with_name(f".{name}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        written.append(path)
    return written


def _rules(rules: Sequence[Alert]) -> dict[str, Any]:
    return {
        "groups": [
            {
                "name": "toolkit",
                "rules": [
                    {
                        "alert": rule.name,
                        "expr": rule.expression,
                        "for": rule.wait,
                        "labels": {"severity": rule.severity},
                        "annotations": {"summary": rule.says, "description": rule.mend},
                    }
                    for rule in rules
                ],
            }
        ]
    }


def _tests(rules: Sequence[Alert]) -> dict[str, Any]:
    """promtool's unit tests: each rule is set off by its bad series and not by its good ones."""
    return {
        "rule_files": [RULES],
        "evaluation_interval": "1m",
        "tests": [_test(rule, bad) for rule in rules for bad in (True, False)],
    }


def _test(rule: Alert, bad: bool) -> dict[str, Any]:
    expected: list[dict[str, Any]] = []
    if bad:
        labels = {"severity": rule.severity, **dict(rule.labels)}
        expected.append({"exp_labels": labels, "exp_annotations": _filled(rule)})
    return {
        "name": f"{rule.name} is {'set off' if bad else 'silent'}",
        "interval": "1m",
        "input_series": [
            {"series": each.name, "values": each.values}
            for each in (rule.bad if bad else rule.good)
        ],
        "alert_rule_test": [{"eval_time": rule.at, "alertname": rule.name, "exp_alerts": expected}],
    }


def _filled(rule: Alert) -> dict[str, str]:
    summary = rule.says
    for name, value in rule.labels:
        summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
    return {"summary": summary, "description": rule.mend}


def _scrape(watching: Watching) -> dict[str, Any]:
    gateway: dict[str, Any] = {
        "job_name": "toolkit-gateway",
        "static_configs": [{"targets": list(watching.gateways)}],
    }
    if watching.certificate is not None:
        gateway |= {"scheme": "https", "tls_config": _trust(watching)}
    server = {"job_name": "triton", "static_configs": [{"targets": list(watching.servers)}]}
    return {
        "global": {"scrape_interval": "5s", "evaluation_interval": "15s"},
        "rule_files": [RULES],
        "scrape_configs": [gateway, server],
    }


def _trust(watching: Watching) -> dict[str, Any]:
    """What makes Prometheus accept the certificate, which may well be signed by itself.

    On this machine there is nobody between, and the names in it are hardly that of the loopback
    address; elsewhere it is itself what is trusted.
    """
    if all(each.startswith(_LOOPBACK) for each in watching.gateways):
        return {"insecure_skip_verify": True}
    return {"ca_file": str(watching.certificate)}


def _yaml(content: dict[str, Any]) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, width=100))
