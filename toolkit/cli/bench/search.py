"""Find the highest rate that the SLO allows, instead of measuring given loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.bench.changes import change
from toolkit.errors import SpecError
from toolkit.spec.overrides import Override

if TYPE_CHECKING:
    from toolkit.cli.bench.judge import JudgeFlags
    from toolkit.cli.bench.load import LoadFlags

PANEL = "Highest rate"


@dataclass(frozen=True)
class SearchFlags:
    """Whether to search, and between what."""

    find_rate: Annotated[
        bool,
        typer.Option(
            "--find-rate",
            help="Find, by bisection, the most sessions a second that keep the SLO: of the "
            "deployment's classes, or --slo-ttft-ms and --slo-itl-ms.",
            rich_help_panel=PANEL,
        ),
    ] = False
    rate_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Of the requests in the SLO; default 0.95.",
            rich_help_panel=PANEL,
        ),
    ] = None
    rate_tolerance: Annotated[
        float | None,
        typer.Option(help="How exactly; default 0.05: to 5%.", rich_help_panel=PANEL),
    ] = None
    rate_start: Annotated[
        float | None,
        typer.Option(help="First rate tried; default 1 a second.", rich_help_panel=PANEL),
    ] = None
    rate_limit: Annotated[
        float | None, typer.Option(help="Try no rate above.", rich_help_panel=PANEL)
    ] = None

    def changes(self, load: LoadFlags, verdict: JudgeFlags) -> Iterator[Override]:
        """What they change in the scenario, which ``load`` has changed before.

        Raises:
            SpecError: flags that do not go together.
        """
        settings = {
            "--rate-share": ("share", self.rate_share),
            "--rate-tolerance": ("tolerance", self.rate_tolerance),
            "--rate-start": ("start", self.rate_start),
            "--rate-limit": ("limit", self.rate_limit),
        }
        if not self.find_rate:
            for flag, (_, value) in settings.items():
                if value is not None:
                    raise SpecError("this goes with --find-rate", where=flag, hint="add it")
            return
        _refuse(load, verdict)
        yield from change("--find-rate", "load", "{type: search}")
        arrivals = load.arrivals or ("trace" if load.trace else None)
        yield from change("--arrivals", "load.arrivals", arrivals)
        for flag, (field, value) in settings.items():
            yield from change(flag, f"load.{field}", value)


def _refuse(load: LoadFlags, verdict: JudgeFlags) -> None:
    given = {
        "--concurrency": load.concurrency,
        "--rate": load.rate,
        "--speedup": load.speedup,
        "--repeats": load.repeats,
    }
    for flag, value in given.items():
        if value is not None:
            raise SpecError("a search chooses its rates and windows itself", where=flag)
    if verdict.fail_below_slo is not None:
        raise SpecError(
            "a search tries rates that miss the SLO",
            where="--fail-below-slo",
            hint="leave it out; --rate-share tells how many requests have to meet the SLO",
        )
