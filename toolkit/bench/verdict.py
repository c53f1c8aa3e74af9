"""What a report is held against, each condition a test case of its own."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.bench.report import BenchReport, Point
from toolkit.errors import SpecError
from toolkit.junit import Case, Outcome

_ROUNDING = 1e-9  # the mean of equal shares may be a little less than each


def cases(report: BenchReport, *, on_errors: bool, least_good: float | None) -> list[Case]:
    """Each condition under each load.

    That the client kept up is no condition of the server's: where it did not, what the figures
    prove is open, and the case is skipped.

    Raises:
        SpecError: a share of good requests is asked for, and nothing says what a good one is.
    """
    return list(_cases(report, on_errors, least_good))


def _cases(report: BenchReport, on_errors: bool, least_good: float | None) -> Iterator[Case]:
    yield _whole(report)
    yield _answers(report)
    for point in report.points:
        if on_errors:
            yield _errors(point)
        if least_good is not None:
            yield _slo(point, least_good)
        yield _client(point)


def _whole(report: BenchReport) -> Case:
    name = "the run came to its end"
    if report.partial or report.failure:
        return Case(name, "error", report.failure or "interrupted", "\n".join(report.notes))
    return Case(name, "passed", f"{len(report.points)} loads measured")


def _answers(report: BenchReport) -> Case:
    counts = [_counts(point) for point in report.points]
    completed = sum(one for _, one in counts)
    message = f"{completed} of {sum(one for one, _ in counts)} completed"
    return Case("requests complete", _outcome(completed > 0), message)


def _errors(point: Point) -> Case:
    requests, completed = _counts(point)
    failed = requests - completed
    text = "\n".join(f"{one.count} x {one.kind}: {one.example}" for one in point.errors)
    message = f"{failed} of {requests} requests failed"
    return Case(f"no request fails [{point.label}]", _outcome(not failed), message, text)


def _slo(point: Point, least: float) -> Case:
    share = point.totals.get("good_share")
    if share is None:
        raise SpecError(
            "there is no SLO to hold the requests against",
            where="--fail-below-slo",
            hint="set --slo-ttft-ms or --slo-itl-ms, slo: in the scenario, or a class's target",
        )
    name = f"{least:.1%} of the requests meet the SLO [{point.label}]"
    return Case(name, _outcome(share.value >= least - _ROUNDING), f"{share.value:.1%} met it")


def _client(point: Point) -> Case:
    reasons = {reason for repeat in point.repeats for reason in repeat.client.reasons}
    name = f"the client keeps up [{point.label}]"
    if any(repeat.client.saturated for repeat in point.repeats):
        return Case(name, "skipped", f"figures are not the server's: {'; '.join(sorted(reasons))}")
    return Case(name, "passed", "the client was not saturated")


def _outcome(kept: bool) -> Outcome:
    return "passed" if kept else "failed"


def _counts(point: Point) -> tuple[int, int]:
    requests = sum(repeat.requests for repeat in point.repeats)
    return requests, sum(repeat.completed for repeat in point.repeats)
