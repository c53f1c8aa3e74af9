"""The run: measure under one load or several."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.bench.ablate import SCENARIO, AblateFlags, run_ablation
from toolkit.cli.bench.judge import JudgeFlags, judge
from toolkit.cli.bench.load import LoadFlags
from toolkit.cli.bench.place import Place, PlaceFlags, find_place
from toolkit.cli.bench.prompts import PromptFlags
from toolkit.cli.bench.show import show
from toolkit.cli.options import JsonOption, QuietOption
from toolkit.cli.progress import PlainLines
from toolkit.errors import SpecError
from toolkit.progress import Silent
from toolkit.spec.overrides import from_flags

if TYPE_CHECKING:
    from toolkit.bench.scenario import Scenario


def bench(
    place: PlaceFlags,
    load: LoadFlags,
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
    _check_lengths(planned, target.max_input_len)
    title = f"{target.model}: {Path(scenario).stem}"
    report = _measure(target, planned, title, prompts.tokenizer, timeout, quiet)
    report = report.model_copy(update={"notes": (*target.notes, *report.notes)})
    show(report, output or target.default_output, json)
    judge(report, verdict)


def _measure(
    place: Place,
    scenario: Scenario,
    title: str,
    tokenizer: Path | None,
    timeout: float,
    quiet: bool,
) -> Any:
    from toolkit.bench.chat import chat_format
    from toolkit.bench.endpoint import target_at
    from toolkit.bench.records import Sampling
    from toolkit.bench.runner import Options, run
    from toolkit.bench.vocabulary import Tokens, Words
    from toolkit.bench.workload import Material

    tokenizer = tokenizer or place.tokenizer
    target = target_at(place.url, place.model, place.protocol, timeout=timeout)
    options = Options(
        stop=scenario.stop,
        repeats=scenario.repeats,
        seed=secrets.randbelow(2**31) if scenario.seed is None else scenario.seed,
        objectives={"": scenario.slo} if scenario.slo else place.objectives or {},
        sampling=Sampling(**scenario.sampling.model_dump()),
        material=Material(Tokens(tokenizer) if tokenizer else Words(), chat_format(tokenizer)),
        title=title,
    )
    # Plain lines, no bars: a bar is redrawn ten times a second by the process that measures.
    progress = Silent() if quiet else PlainLines(sys.stderr)
    return run(target, scenario.workload, scenario.load.loads, options, progress=progress)


def _check_output(output: Path | None) -> None:
    if output is not None and output.exists() and not output.is_dir():
        raise SpecError(
            "there is a file in the place of the report's directory",
            where=f"--output {output}",
            hint="name a directory; report.json, .md and .html go into it",
        )


def _check_lengths(scenario: Scenario, most: int | None) -> None:
    """Every request would be refused, one after the other."""
    lengths = getattr(scenario.workload, "prompt_tokens", None)
    if most is not None and lengths is not None and lengths.least > most:
        raise SpecError(
            f"no prompt of {lengths.least} tokens fits engine.limits.max_input_len ({most})",
            where="--prompt-tokens",
            hint=f"measure with {most} or fewer",
        )
