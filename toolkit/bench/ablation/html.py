"""The ablation as one HTML page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from toolkit.bench.ablation.figures import BY_NAME
from toolkit.bench.ablation.markdown import METHOD, facts, left_out, rungs
from toolkit.bench.ablation.plots import plots
from toolkit.bench.ablation.report import AblationReport, LoadResults
from toolkit.bench.ablation.tables import sentences, tables
from toolkit.bench.ablation.words import times_text
from toolkit.bench.rows import Table
from toolkit.bench.style import STYLE

_STYLE = """
rect.gain,.key.gain{fill:#009e73;background:#009e73}
rect.loss,.key.loss{fill:#d55e00;background:#d55e00}
rect.untold,.key.untold{fill:#9aa4ae;background:#9aa4ae}
h3{font-size:15px;margin:22px 0 4px}
"""
_TILES = (
    ("e2e.p50", "median end-to-end latency"),
    ("output_throughput", "tokens a second"),
    ("ttft_later.p50", "median TTFT of later turns"),
    ("ttft.p50", "median TTFT"),
)


def render_html(report: AblationReport) -> str:
    """The whole page."""
    partial = '<p class="warn">Interrupted: what is here was measured, but not all of it.</p>'
    first, drawn = report.rungs[0].title, list(_figures(report))
    body = [
        f"<h1>{escape(report.title)}</h1>",
        f'<p class="lead">{escape(report.machine.cpu)}, {report.machine.cores} cores &middot; '
        f"{escape(report.created)}</p>",
        partial if report.partial else "",
        *(f'<p class="warn">{escape(note)}</p>' for note in report.notes),
        *(_tiles(report, load, first) for load in report.loads[-1:]),
        f'<div class="plots">{"".join(drawn)}</div>',
        _KEYS if any("<rect" in one for one in drawn) else "",
        *(_load(report, load) for load in report.loads),
        _list("Not measured on its own", left_out(report)),
        _list("What each rung is", rungs(report)),
        f"<h2>How it was measured</h2><p>{escape(METHOD)}</p><dl>{_facts(report)}</dl>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{STYLE}{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


_KEYS = (
    '<p class="legend"><span><i class="key gain"></i>better</span>'
    '<span><i class="key loss"></i>worse</span>'
    '<span><i class="key untold"></i>no difference could be told</span></p>'
)


def _tiles(report: AblationReport, load: LoadResults, first: str) -> str:
    full = next((rung for rung in report.rungs if rung.is_full), None)
    tiles = []
    for metric, title in _TILES if full else ():
        found = report.find(load.label, full.key, "first", metric) if full else None
        if found:
            times = found.times.value
            words = ("more", "fewer") if BY_NAME[metric].better == "higher" else ("lower", "higher")
            way = words[times < 1]
            tiles.append(
                f"<div><b>{max(times, 1 / times):.1f}x</b><span>{way} {title}</span>"
                f"<small>full against {escape(first)}, {escape(load.label)}: "
                f"{times_text(found.times)} as good</small></div>"
            )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _figures(report: AblationReport) -> Iterator[str]:
    for title, plot in plots(report):
        if plot:
            yield f"<figure><figcaption>{escape(title)}</figcaption>{plot}</figure>"


def _load(report: AblationReport, load: LoadResults) -> str:
    made = "".join(_table(table) for table in tables(report, load))
    said = _list("What each step did", sentences(report, load))
    return f"<h2>{escape(load.label)}</h2>{said}{made}"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _list(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_code(escape(line))}</li>" for line in lines)
    return f"<h3>{escape(title)}</h3><ul>{items}</ul>" if items else ""


def _code(text: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", text)


def _facts(report: AblationReport) -> str:
    return "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(report)
    )
