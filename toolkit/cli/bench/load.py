"""How much load, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.bench.changes import change
from toolkit.errors import SpecError
from toolkit.spec.overrides import Override

PANEL = "Load"


@dataclass(frozen=True)
class LoadFlags:
    """Users, rates or a trace, and when to stop."""

    concurrency: Annotated[
        str | None,
        typer.Option(help="Users at once, e.g. 1,8,32: closed loop.", rich_help_panel=PANEL),
    ] = None
    rate: Annotated[
        str | None,
        typer.Option(help="Sessions a second, e.g. 0.5,2: open loop.", rich_help_panel=PANEL),
    ] = None
    arrivals: Annotated[
        str | None, typer.Option(help="poisson, constant or burst.", rich_help_panel=PANEL)
    ] = None
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Replay a Mooncake (JSONL) or Azure (CSV) trace; --rate R then stretches its "
            "times to R requests a second.",
            rich_help_panel=PANEL,
        ),
    ] = None
    trace_format: Annotated[
        str | None,
        typer.Option(help="mooncake or azure; default: by the first line.", rich_help_panel=PANEL),
    ] = None
    speedup: Annotated[
        str | None,
        typer.Option(help="Replay so much faster, e.g. 1,2,4.", rich_help_panel=PANEL),
    ] = None
    duration: Annotated[
        str | None,
        typer.Option(
            help="Measured time of each load: 30s, 5m; a number is seconds.", rich_help_panel=PANEL
        ),
    ] = None
    warmup: Annotated[
        str | None, typer.Option(help="Time of load before that.", rich_help_panel=PANEL)
    ] = None
    requests: Annotated[
        int | None,
        typer.Option(help="Measure so many instead of for a time.", rich_help_panel=PANEL),
    ] = None
    repeats: Annotated[
        int | None, typer.Option(help="Repeats of each load.", rich_help_panel=PANEL)
    ] = None
    processes: Annotated[
        str | None,
        typer.Option(
            help="Of the client: a number, or auto (default): by load and cores.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def changes(self) -> Iterator[Override]:
        """What they change in the scenario.

        Raises:
            SpecError: flags that exclude one another.
        """
        yield from self._loads()
        yield from change("--duration", "stop.duration", self.duration)
        yield from change("--warmup", "stop.warmup", self.warmup)
        yield from change("--requests", "stop.requests", self.requests)
        yield from change("--repeats", "repeats", self.repeats)
        yield from change("--processes", "processes", self.processes)

    def _loads(self) -> Iterator[Override]:
        if self.concurrency and self.rate:
            raise SpecError("--concurrency is a closed loop, --rate an open one: give one of them")
        if self.trace is not None:
            # YAML reads a JSON text, but for its pairs of escapes beyond 16 bits.
            path = dumps(str(self.trace.absolute()), ensure_ascii=False)
            workload = f"{{type: trace, path: {path}}}"
            yield from change(f"--trace {self.trace}", "workload", workload)
            if not self.concurrency:
                yield from change("--trace", "load", "{type: trace}")
        yield from change("--trace-format", "workload.format", self.trace_format)
        if self.concurrency:
            loads = f"{{type: closed, concurrency: [{self.concurrency}]}}"
            yield from change(f"--concurrency {self.concurrency}", "load", loads)
        if self.rate:
            kind = "open" if self.trace is None or self.arrivals else "trace"
            loads = f"{{type: {kind}, rate: [{self.rate}]}}"
            yield from change(f"--rate {self.rate}", "load", loads)
        if self.speedup:
            yield from change(f"--speedup {self.speedup}", "load.speedup", f"[{self.speedup}]")
        yield from change("--arrivals", "load.arrivals", self.arrivals)
