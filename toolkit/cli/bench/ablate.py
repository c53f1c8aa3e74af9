"""``toolkit bench FILE --ablate``: what each optimization of a deployment is worth."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.bench.judge import INTERRUPTED
from toolkit.cli.output import print_json, print_table
from toolkit.cli.progress import PlainLines
from toolkit.errors import SpecError
from toolkit.progress import Silent
from toolkit.spec.document import parse_value
from toolkit.spec.overrides import Override
from toolkit.spec.problems import Place

if TYPE_CHECKING:
    from toolkit.bench.ablation.report import AblationReport
    from toolkit.bench.scenario import Scenario
    from toolkit.cli.bench.judge import JudgeFlags
    from toolkit.cli.bench.load import LoadFlags
    from toolkit.cli.bench.place import PlaceFlags
    from toolkit.pipeline.ablation.method import Method
    from toolkit.spec.models import Deployment

PANEL = "Ablation"
SCENARIO = "ablation"


@dataclass(frozen=True)
class AblateFlags:
    """Whether to take a deployment apart, and how far."""

    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Build, serve and measure FILE from naive to full, one optimization after the "
            "other, and full without each; --repeats are rounds.",
            rich_help_panel=PANEL,
        ),
    ] = False
    rungs: Annotated[
        str | None,
        typer.Option(
            metavar="KEYS",
            help="Which: all (default), ladder, full, or keys such as naive,in-flight,kv-reuse,"
            "without-quantization.",
            rich_help_panel=PANEL,
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the latest ablation of FILE with these options, or that of --output.",
            rich_help_panel=PANEL,
        ),
    ] = False

    def check(self, verdict: JudgeFlags) -> None:
        """Refuse what belongs to an ablation where none was asked for, and the other way round.

        Raises:
            SpecError: with the flag.
        """
        for flag, given in (("--rungs", self.rungs), ("--resume", self.resume)):
            if given and not self.ablate:
                raise SpecError("this goes with --ablate", where=flag, hint="add --ablate")
        judged = [
            flag
            for flag, given in (
                ("--fail-on-errors", verdict.fail_on_errors),
                ("--fail-below-slo", verdict.fail_below_slo is not None),
                ("--junit", verdict.junit is not None),
            )
            if given
        ]
        if self.ablate and judged:
            raise SpecError(
                "an ablation has no verdict: its lower rungs are there to be slow",
                where=judged[0],
                hint="leave it out, or measure the deployment without --ablate",
            )

    def changes(self, load: LoadFlags) -> Iterator[Override]:
        """``--duration`` means a time: the number of requests that the scenario sets goes."""
        if self.ablate and load.duration is not None and load.requests is None:
            flag = f"--duration {load.duration}"
            yield Override(("stop", "requests"), parse_value("null", flag), Place(flag))


def run_ablation(
    place: PlaceFlags,
    flags: AblateFlags,
    scenario: Scenario,
    *,
    title: str,
    tokenizer: Path | None,
    timeout: float,
    output: Path | None,
    json: bool,
    quiet: bool,
) -> None:
    """Measure, write ``ablation.json``, ``.md`` and ``.html``, and print the tables.

    Raises:
        SpecError: the flags or the deployment file are wrong.
        typer.Exit: with 130 after Ctrl-C.
    """
    from toolkit.pipeline.ablation.running import Where, ablate
    from toolkit.spec.loading import load
    from toolkit.workspace import Workspace, default_root

    if place.file is None or place.url or place.protocol or place.model:
        raise SpecError(
            "an ablation serves the deployment itself",
            where="--ablate",
            hint="give a deployment FILE, and none of --url, --model and --protocol",
        )
    deployment = load(place.file, overrides=place.set_ or []).resolved()
    _check_growth(scenario, deployment.engine.limits.max_input_len)
    report, folder = ablate(
        deployment,
        Workspace(place.workspace or default_root(place.file)),
        _method(scenario, deployment, title, tokenizer, timeout),
        rungs=[word.strip() for word in (flags.rungs or "all").split(",")],
        where=Where(output, flags.resume),
        progress=Silent() if quiet else PlainLines(sys.stderr),
    )
    _show(report, folder, json)
    if report.partial:
        raise typer.Exit(INTERRUPTED)


def _method(
    scenario: Scenario, deployment: Deployment, title: str, tokenizer: Path | None, timeout: float
) -> Method:
    from dataclasses import replace

    from toolkit.cli.bench.measure import within_limits
    from toolkit.cli.bench.place import Place
    from toolkit.pipeline.ablation.method import Method

    limits = deployment.engine.limits
    place = Place("", "", None, max_input_len=limits.max_input_len, max_seq_len=limits.max_seq_len)
    held = scenario.model_copy(update={"workload": within_limits(scenario.workload, place)})
    method = Method.of(held, deployment, f"{deployment.name}: {title}")
    # The flag's default is meant for servers that are well.
    return replace(method, tokenizer=tokenizer, timeout=max(timeout, method.timeout))


def _check_growth(scenario: Scenario, most: int) -> None:
    """Every last turn would be refused, on every rung."""
    from toolkit.bench.workload import Conversation

    talk = scenario.workload
    if not isinstance(talk, Conversation):
        return
    turns = talk.turns.least
    said = turns * talk.user_tokens.least + (turns - 1) * talk.output_tokens.least
    if talk.system_tokens + said > most:
        raise SpecError(
            f"the last prompt of a conversation has {talk.system_tokens + said} tokens or more, "
            f"above engine.limits.max_input_len ({most})",
            where="workload",
            hint="--with workload.turns=2 or --with workload.system_tokens=0 make it shorter",
        )


def _show(report: AblationReport, folder: Path, as_json: bool) -> None:
    from toolkit.bench.ablation.files import write_ablation
    from toolkit.bench.ablation.tables import sentences, tables

    written = write_ablation(report, folder)
    if as_json:
        print_json(report)
        return
    for load in report.loads:
        for table in tables(report, load):
            print_table(table.title, table.columns, table.rows, right=",".join(table.columns[1:]))
        for line in sentences(report, load):
            typer.echo(f"- {line}")
    for one in report.left_out:
        typer.echo(f"left out: {one.title}: {one.reason}")
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"report: {written[-1]}")
