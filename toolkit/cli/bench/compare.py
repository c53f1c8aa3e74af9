"""``toolkit bench compare``: two reports, and limits for what changed between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.options import JsonOption
from toolkit.cli.output import counted, print_json, print_table
from toolkit.errors import SpecError, Undecided, ValidationFailed

if TYPE_CHECKING:
    from toolkit.bench.compare import Comparison

_LIMIT = 'add one, such as --fail-if "ttft_p95 > +10%"'


def compare(
    base: Annotated[
        Path, typer.Argument(metavar="BASE", help="report.json, or its folder.", show_default=False)
    ],
    new: Annotated[
        Path, typer.Argument(metavar="NEW", help="What is held against it.", show_default=False)
    ],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="LIMIT",
            help='What must not be, such as "ttft_p95 > +10%", "output_throughput < -5% @ 32 '
            'users" or "e2e_p99 > 2s"; may be repeated.',
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(help="That no limit fails if nothing changed.", min=0.5, max=0.9999),
    ] = 0.95,
    allow_undecided: Annotated[
        bool,
        typer.Option("--allow-undecided", help="Exit 0, not 7, where the runs cannot tell."),
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="PATH", help="Also write JUnit XML: each limit a test."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="PATH", help="Also write Markdown.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tell what changed between two reports, and whether that is more than chance.

    Measure both with --repeats 5 or more. Exit code 5: a limit is broken, and not by
    chance. 7: the runs are too short or too noisy to tell.
    """
    from toolkit.bench.compare import compare as hold_against
    from toolkit.bench.compare import parse_gate
    from toolkit.bench.compare.tables import cases, comparison_markdown
    from toolkit.bench.files import read_report
    from toolkit.junit import write_junit
    from toolkit.spec.writing import write_text

    gates = [parse_gate(text) for text in fail_if or ()]
    if junit and not gates:
        raise SpecError("without a limit there is no test to write", where="--junit", hint=_LIMIT)
    found = hold_against(read_report(base), read_report(new), gates, confidence=confidence)
    if junit:
        title = f"toolkit bench compare {found.new.title}"
        write_junit(junit, title, f"bench.compare.{found.new.target}", cases(found))
    if markdown:
        write_text(markdown, comparison_markdown(found), force=True)
    if json:
        print_json(found)
    else:
        _show(found)
    _judge(found, allow_undecided)


def _show(found: Comparison) -> None:
    from toolkit.bench.compare.tables import changes_table, explanation, facts, gates_table

    for line in facts(found):
        typer.echo(line)
    for line in found.differing:
        typer.echo(f"note: {line}", err=True)
    for table in (gates_table(found), changes_table(found)):
        if table.rows:
            print_table(table.title, table.columns, table.rows, right=",".join(table.columns[2:-1]))
    typer.echo(explanation(found))


def _judge(found: Comparison, allow_undecided: bool) -> None:
    failed, undecided = found.having("failed"), found.having("undecided")
    where = found.new.title
    if failed:
        raise ValidationFailed(
            f"{counted(len(failed), 'limit')} of {len(found.judgements)} broken",
            where=where,
            details=[f"{one.gate} [{one.load}]: {one.evidence}" for one in failed],
        )
    if undecided and not allow_undecided:
        raise Undecided(
            f"{counted(len(undecided), 'limit')} of {len(found.judgements)} cannot be judged",
            where=where,
            hint="measure both longer or with more --repeats; --allow-undecided lets it pass",
            details=[f"{one.gate} [{one.load}]: {one.evidence}" for one in undecided],
        )
