"""Turn a report into an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.bench.changes import change
from toolkit.errors import EnvironmentError_, ServerError, ValidationFailed
from toolkit.spec.overrides import Override

if TYPE_CHECKING:
    from toolkit.bench.report import BenchReport

INTERRUPTED = 130
PANEL = "Verdict"


@dataclass(frozen=True)
class JudgeFlags:
    """What has to hold for exit code 0."""

    slo_ttft_ms: Annotated[
        float | None,
        typer.Option(help="Target for the first token.", min=0.001, rich_help_panel=PANEL),
    ] = None
    slo_itl_ms: Annotated[
        float | None,
        typer.Option(help="Target for the time per token.", min=0.001, rich_help_panel=PANEL),
    ] = None
    fail_on_errors: Annotated[
        bool, typer.Option("--fail-on-errors", help="Exit 5 if any failed.", rich_help_panel=PANEL)
    ] = False
    fail_below_slo: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Exit 5 if fewer requests meet the SLO, e.g. 0.95.",
            min=0,
            max=1,
            rich_help_panel=PANEL,
        ),
    ] = None

    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit",
            metavar="PATH",
            help="Also write JUnit XML: each condition a test.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def changes(self) -> Iterator[Override]:
        """What they change in the scenario."""
        yield from change("--slo-ttft-ms", "slo.ttft_ms", self.slo_ttft_ms)
        yield from change("--slo-itl-ms", "slo.itl_ms", self.slo_itl_ms)


def judge(report: BenchReport, flags: JudgeFlags) -> None:
    """Write the JUnit file, if one is asked for, and raise what the report deserves.

    Raises:
        ServerError: no request completed.
        EnvironmentError_: a load process died, so that not all was measured.
        ValidationFailed: what was asked for was missed.
    """
    from toolkit.bench.verdict import cases
    from toolkit.junit import write_junit

    requests = sum(repeat.requests for point in report.points for repeat in point.repeats)
    completed = sum(repeat.completed for point in report.points for repeat in point.repeats)
    least = flags.fail_below_slo if completed else None
    found = cases(report, on_errors=flags.fail_on_errors, least_good=least)
    if flags.junit:
        group = f"bench.{report.target.name}"
        write_junit(flags.junit, f"toolkit bench {report.title}", group, found)
    if not completed:
        raise ServerError(
            "no request completed", where=report.target.url, details=list(report.notes)
        )
    if report.failure:
        raise EnvironmentError_(report.failure, details=list(report.notes))
    if report.partial:
        raise typer.Exit(INTERRUPTED)
    if flags.fail_on_errors and completed < requests:
        raise ValidationFailed(
            f"{requests - completed} of {requests} requests failed", details=list(report.notes)
        )
    missed = [f"{one.name}: {one.message}" for one in found if one.outcome == "failed"]
    if missed and flags.fail_below_slo is not None:
        raise ValidationFailed(
            f"fewer than {flags.fail_below_slo:.1%} of the requests met the SLO", details=missed
        )
