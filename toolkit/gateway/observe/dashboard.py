"""A Grafana dashboard from a short list of panels.

The JSON model: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_WIDTH, _HEIGHT = 8, 8
_MODEL = 'model=~"$model"'
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Line:
    """One query and what its series are called."""

    query: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One graph; ``unit`` is Grafana's name of it."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    about: str = ""


@dataclass(frozen=True)
class Row:
    """Panels side by side under a heading."""

    title: str
    panels: tuple[Panel, ...]


def _quantile(name: str, share: float) -> Line:
    family = f"toolkit_gateway_{name}_seconds_bucket{{{_MODEL}}}"
    rate = f"rate({family}[$__rate_interval])"
    query = f"histogram_quantile({share}, sum by (le, request_class) ({rate}))"
    return Line(query, f"p{share * 100:g} {{{{request_class}}}}")


def _quantiles(title: str, name: str, about: str) -> Panel:
    return Panel(title, "s", (_quantile(name, 0.5), _quantile(name, 0.95)), about)


def _rate(family: str, by: str, legend: str, more: str = "") -> Line:
    labels = f"{_MODEL}{',' if more else ''}{more}"
    return Line(f"sum by ({by}) (rate({family}{{{labels}}}[$__rate_interval]))", legend)


def _ratio(above: str, below: str) -> str:
    return (
        f"sum by (model) (rate({above}[$__rate_interval])) / "
        f"sum by (model) (rate({below}[$__rate_interval]))"
    )


_TOKENS = "toolkit_gateway_tokens_total"
_DRAFTS = "toolkit_gateway_draft_tokens_total"
_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"

ROWS = (
    Row(
        "Latency",
        (
            _quantiles("Time to first token", "ttft", "From arrival at the gateway."),
            _quantiles("Between pieces of text", "itl", "Busy servers merge tokens into one."),
            _quantiles("End to end", "e2e", "Depends on how long answers are."),
            _quantiles("Wait in the queue", "queue", "Part of the time to first token."),
            Panel(
                "First tokens in time",
                "percentunit",
                (
                    Line(
                        "sum by (request_class) (rate(toolkit_gateway_ttft_target_total"
                        f'{{{_MODEL},met="true"}}[$__rate_interval])) / sum by (request_class) '
                        f"(rate(toolkit_gateway_ttft_target_total{{{_MODEL}}}[$__rate_interval]))",
                        "{{request_class}}",
                    ),
                ),
            ),
        ),
    ),
    Row(
        "Load",
        (
            Panel(
                "Requests",
                "reqps",
                (_rate("toolkit_gateway_requests_total", "outcome", "{{outcome}}"),),
            ),
            Panel("Tokens", "short", (_rate(_TOKENS, "kind", "{{kind}} a second"),)),
            Panel(
                "Waiting and running",
                "short",
                (
                    Line(
                        f"sum by (request_class) (toolkit_gateway_queued{{{_MODEL}}})",
                        "waiting {{request_class}}",
                    ),
                    Line(
                        f"sum by (request_class) (toolkit_gateway_running{{{_MODEL}}})",
                        "running {{request_class}}",
                    ),
                ),
            ),
            Panel(
                "Refused",
                "reqps",
                (_rate("toolkit_gateway_refused_total", "reason", "{{reason}}"),),
            ),
            Panel(
                "Cost of a thousand tokens",
                "short",
                (Line("toolkit_gateway_cost_per_thousand_tokens", "last five minutes"),),
                "Needs gateway.cost_per_hour.",
            ),
        ),
    ),
    Row(
        "Engines",
        (
            Panel(
                "KV cache in use",
                "percentunit",
                (
                    Line(
                        f'{_BLOCKS}{{{_MODEL},kv_cache_block_type="used"}} / ignoring '
                        f'(kv_cache_block_type) {_BLOCKS}{{{_MODEL},kv_cache_block_type="max"}}',
                        "{{instance}}",
                    ),
                ),
            ),
            Panel(
                "Prompt tokens from the cache",
                "percentunit",
                (
                    Line(
                        _ratio(
                            f'{_TOKENS}{{{_MODEL},kind="cached"}}',
                            f'{_TOKENS}{{{_MODEL},kind="prompt"}}',
                        ),
                        "{{model}}",
                    ),
                ),
            ),
            Panel(
                "Draft tokens accepted",
                "percentunit",
                (
                    Line(
                        _ratio(
                            f'{_DRAFTS}{{{_MODEL},kind="accepted"}}',
                            f'{_DRAFTS}{{{_MODEL},kind="proposed"}}',
                        ),
                        "{{model}}",
                    ),
                ),
            ),
            Panel(
                "Replicas that take work",
                "short",
                (Line(f"toolkit_gateway_replica_up{{{_MODEL}}}", "{{replica}}"),),
            ),
            Panel(
                "Outstanding tokens",
                "short",
                (Line(f"toolkit_gateway_replica_outstanding_tokens{{{_MODEL}}}", "{{replica}}"),),
            ),
            Panel(
                "Retries and ejections",
                "short",
                (
                    _rate("toolkit_gateway_retries_total", "replica", "retries {{replica}}"),
                    _rate("toolkit_gateway_ejections_total", "replica", "ejections {{replica}}"),
                ),
            ),
        ),
    ),
)


def dashboard(title: str) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "title": title,
        "uid": None,
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["toolkit", "llm"],
        "templating": {"list": [_source_variable(), _model_variable()]},
        "panels": list(_panels()),
    }


def _panels() -> list[dict[str, Any]]:
    placed: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        grid = {"x": 0, "y": y, "w": 3 * _WIDTH, "h": 1}
        placed.append({"type": "row", "title": row.title, "gridPos": grid, "collapsed": False})
        y += 1
        for number, panel in enumerate(row.panels):
            line, column = divmod(number, 3)
            where = {"x": column * _WIDTH, "y": y + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            placed.append(_panel(panel, where))
        y += _HEIGHT * -(-len(row.panels) // 3)
    return [{"id": number, **each} for number, each in enumerate(placed, 1)]


def _panel(panel: Panel, where: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "gridPos": where,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list"}},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "expr": line.query,
                "legendFormat": line.legend,
                "datasource": _SOURCE,
            }
            for number, line in enumerate(panel.lines)
        ],
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _model_variable() -> dict[str, Any]:
    return {
        "name": "model",
        "type": "query",
        "datasource": _SOURCE,
        "query": "label_values(toolkit_gateway_replica_up, model)",
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
