"""Turn a report into an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from toolkit.cli.bench.changes import change
from toolkit.errors import ServerError, SpecError, ValidationFailed
from toolkit.spec.overrides import Override

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

    def changes(self) -> Iterator[Override]:
        """What they change in the scenario."""
        yield from change("--slo-ttft-ms", "slo.ttft_ms", self.slo_ttft_ms)
        yield from change("--slo-itl-ms", "slo.itl_ms", self.slo_itl_ms)


def judge(report: Any, flags: JudgeFlags) -> None:
    """Raise what the report deserves.

    Raises:
        ServerError: no request completed.
        ValidationFailed: what was asked for was missed.
    """
    requests = sum(repeat.requests for point in report.points for repeat in point.repeats)
    completed = sum(repeat.completed for point in report.points for repeat in point.repeats)
    if not completed:
        raise ServerError(
            "no request completed", where=report.target.url, details=list(report.notes)
        )
    if report.partial:
        raise typer.Exit(INTERRUPTED)
    if flags.fail_on_errors and completed < requests:
        raise ValidationFailed(
            f"{requests - completed} of {requests} requests failed", details=list(report.notes)
        )
    if flags.fail_below_slo is not None:
        _judge_slo(report, flags.fail_below_slo)


def _judge_slo(report: Any, least: float) -> None:
    missed = []
    for point in report.points:
        share = point.totals.get("good_share")
        if share is None:
            raise SpecError(
                "there is no SLO to hold the requests against",
                where="--fail-below-slo",
                hint="set --slo-ttft-ms or --slo-itl-ms, slo: in the scenario, or a class's target",
            )
        if share.value < least:
            missed.append(f"{point.label}: {share.value:.1%}")
    if missed:
        raise ValidationFailed(
            f"fewer than {least:.1%} of the requests met the SLO", details=missed
        )
