"""The run: measure under one load or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.bench.ablate import SCENARIO, AblateFlags, run_ablation
from toolkit.cli.bench.judge import JudgeFlags, judge
from toolkit.cli.bench.load import LoadFlags
from toolkit.cli.bench.measure import check_lengths, measure
from toolkit.cli.bench.place import PlaceFlags, find_place
from toolkit.cli.bench.prompts import PromptFlags
from toolkit.cli.bench.search import SearchFlags
from toolkit.cli.bench.show import show
from toolkit.cli.options import JsonOption, QuietOption
from toolkit.errors import SpecError
from toolkit.spec.overrides import from_flags


def bench(
    place: PlaceFlags,
    load: LoadFlags,
    search: SearchFlags,
    prompts: PromptFlags,
    verdict: JudgeFlags,
    ablation: AblateFlags,
    scenario: Annotated[
        str | None,
        typer.Option(
            "--scenario",
            "-s",
            metavar="NAME|FILE",
            help="What to run; default: smoke, or ablation with --ablate.",
        ),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="FIELD=VALUE", help="Override a field of the scenario."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.", min=0.1)] = 120.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where report.json, .md, .html go."),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure latency and throughput; writes JSON, Markdown and one HTML page.

    FILE names a deployment that runs; --url and --model name any Triton. Ctrl-C ends early and
    still writes what was measured. With --ablate FILE need not run.
    """
    from toolkit.bench.scenario import load_scenario

    ablation.check(verdict)
    scenario = scenario or (SCENARIO if ablation.ablate else "smoke")
    changes = [
        *load.changes(),
        *search.changes(load, verdict),
        *ablation.changes(load),
        *prompts.changes(),
        *verdict.changes(),
        *from_flags(with_ or (), "--with"),
    ]
    # What can be wrong with the arguments comes before the server and long before the load.
    planned = load_scenario(scenario, changes)
    _check_output(output)
    if ablation.ablate:
        run_ablation(
            place,
            ablation,
            planned,
            title=Path(scenario).stem,
            tokenizer=prompts.tokenizer,
            timeout=timeout,
            output=output,
            json=json,
            quiet=quiet,
        )
        return
    target = find_place(place)
    check_lengths(planned, target.max_input_len)
    title = f"{target.model}: {Path(scenario).stem}"
    report = measure(
        target, planned, title, tokenizer=prompts.tokenizer, timeout=timeout, quiet=quiet
    )
    report = report.model_copy(update={"notes": (*target.notes, *report.notes)})
    show(report, output or target.default_output, json)
    judge(report, verdict)


def _check_output(output: Path | None) -> None:
    if output is not None and output.exists() and not output.is_dir():
        raise SpecError(
            "there is a file in the place of the report's directory",
            where=f"--output {output}",
            hint="name a directory; report.json, .md and .html go into it",
        )
