"""``toolkit bench``: measure latency and throughput of a deployment or of any Triton."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from toolkit.cli.options import JsonOption, QuietOption, SetOption, WorkspaceOption
from toolkit.cli.output import print_json, print_table
from toolkit.cli.progress import PlainLines
from toolkit.errors import ServerError, SpecError, ValidationFailed
from toolkit.progress import Silent
from toolkit.spec.document import parse_value
from toolkit.spec.overrides import Override, from_flags
from toolkit.spec.problems import Place

if TYPE_CHECKING:
    from toolkit.bench.scenario import Scenario
    from toolkit.spec.models import Deployment

INTERRUPTED = 130
LOAD = "Load"
WORKLOAD = "Workload"
JUDGE = "Verdict"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench_command)


def bench_command(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The deployment file.", show_default=False),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="grpc://HOST:PORT or http://HOST:PORT.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model to call; default: FILE's name.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", help="grpc (streaming, default), http-stream, http or openai (gateway)."
        ),
    ] = None,
    scenario: Annotated[
        str, typer.Option("--scenario", "-s", metavar="NAME|FILE", help="What to run.")
    ] = "smoke",
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="FIELD=VALUE", help="Override a field of the scenario."),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(help="Users at once, e.g. 1,8,32: closed loop.", rich_help_panel=LOAD),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(help="Sessions a second, e.g. 0.5,2: open loop.", rich_help_panel=LOAD),
    ] = None,
    arrivals: Annotated[
        str | None, typer.Option(help="poisson, constant or burst.", rich_help_panel=LOAD)
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(
            help="Measured time of each load: 30s, 5m; a number is seconds.", rich_help_panel=LOAD
        ),
    ] = None,
    warmup: Annotated[
        str | None, typer.Option(help="Time of load before that.", rich_help_panel=LOAD)
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(help="Measure so many instead of for a time.", rich_help_panel=LOAD),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Repeats of each load.", rich_help_panel=LOAD)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of prompts and arrivals; default: another each time, as the server's cache "
            "still holds the last prompts.",
            rich_help_panel=WORKLOAD,
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(help="Length of prompts.", rich_help_panel=WORKLOAD)
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(help="Length of answers.", rich_help_panel=WORKLOAD)
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="tokenizer.json or its folder; default: the deployment's, else words are counted.",
            rich_help_panel=WORKLOAD,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.", min=0.1)] = 120.0,
    slo_ttft_ms: Annotated[
        float | None,
        typer.Option(help="Target for the first token.", min=0.001, rich_help_panel=JUDGE),
    ] = None,
    slo_itl_ms: Annotated[
        float | None,
        typer.Option(help="Target for the time per token.", min=0.001, rich_help_panel=JUDGE),
    ] = None,
    fail_on_errors: Annotated[
        bool, typer.Option("--fail-on-errors", help="Exit 5 if any failed.", rich_help_panel=JUDGE)
    ] = False,
    fail_below_slo: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Exit 5 if fewer requests meet the SLO, e.g. 0.95.",
            min=0,
            max=1,
            rich_help_panel=JUDGE,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where report.json, .md, .html go."),
    ] = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure latency and throughput; writes JSON, Markdown and one HTML page.

    FILE names a deployment that runs; --url and --model name any Triton. Ctrl-C ends early and
    still writes what was measured.
    """
    from toolkit.bench.scenario import load_scenario

    changes = [
        *_load_changes(concurrency, rate, arrivals),
        *_change("--duration", "stop.duration", duration),
        *_change("--warmup", "stop.warmup", warmup),
        *_change("--requests", "stop.requests", requests),
        *_change("--repeats", "repeats", repeats),
        *_change("--seed", "seed", seed),
        *_change("--prompt-tokens", "workload.prompt_tokens", prompt_tokens),
        *_change("--output-tokens", "workload.output_tokens", output_tokens),
        *_change("--slo-ttft-ms", "slo.ttft_ms", slo_ttft_ms),
        *_change("--slo-itl-ms", "slo.itl_ms", slo_itl_ms),
        *from_flags(with_ or (), "--with"),
    ]
    # What can be wrong with the arguments comes before the server and long before the load.
    planned = load_scenario(scenario, changes)
    _check_output(output)
    place = _place(file, url, model, protocol, set_ or [], workspace)
    _check_lengths(planned, place.max_input_len)
    title = f"{place.model}: {Path(scenario).stem}"
    report = _measure(place, planned, title, tokenizer or place.tokenizer, timeout, quiet)
    report = report.model_copy(update={"notes": (*place.notes, *report.notes)})
    folder = output or place.default_output
    _show(report, folder, json)
    _judge(report, fail_on_errors, fail_below_slo)


@dataclass(frozen=True)
class _Place:
    """What to measure, and what the deployment file says beside it."""

    url: str
    model: str
    protocol: Any
    tokenizer: Path | None
    objectives: dict[str, Any]
    default_output: Path | None
    max_input_len: int | None = None
    notes: tuple[str, ...] = ()


def _place(
    file: Path | None,
    url: str | None,
    model: str | None,
    protocol: str | None,
    overrides: list[str],
    workspace: Path | None,
) -> _Place:
    from toolkit.bench.endpoint import find_deployed
    from toolkit.spec.loading import load
    from toolkit.workspace import default_root

    if protocol not in (None, "grpc", "http-stream", "http", "openai"):
        raise SpecError(
            f"unknown protocol {protocol!r}",
            where="--protocol",
            hint="grpc, http-stream, http or openai",
        )
    if file is None:
        if url is None or model is None:
            raise SpecError("give a deployment FILE, or --url and --model")
        return _Place(url, model, protocol, None, {}, None)
    loaded = load(file, overrides=overrides)
    deployment = loaded.deployment
    root = workspace or default_root(file)
    found = None if url else find_deployed(deployment, root)
    address = found.url(cast("Any", protocol)) if found else url or ""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    return _Place(
        address,
        model or deployment.name,
        protocol,
        found.tokenizer if found else None,
        _objectives(deployment),
        root / "bench" / f"{deployment.name}-{stamp}",
        deployment.engine.limits.max_input_len,
        _doubts(loaded.resolved(), root, found.digest) if found else (),
    )


def _doubts(deployment: Deployment, root: Path, digest: str) -> tuple[str, ...]:
    from toolkit.pipeline.expected import is_another_build
    from toolkit.workspace import Workspace

    if not is_another_build(deployment, Workspace(root), digest):
        return ()
    return (
        f"the {deployment.name} that was measured was built from another file or with other "
        "settings; toolkit deploy FILE --replace brings up this one",
    )


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


def _objectives(deployment: Deployment) -> dict[str, Any]:
    """Each class's targets; requests of no class are served as the first one listed."""
    from toolkit.bench.metrics import Objective

    classes = {
        name: Objective(ttft_ms=one.ttft_ms, itl_ms=one.itl_ms)
        for name, one in deployment.scheduling.classes.items()
    }
    return {"": next(iter(classes.values())), **classes}


def _measure(
    place: _Place,
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

    target = target_at(place.url, place.model, place.protocol, timeout=timeout)
    options = Options(
        stop=scenario.stop,
        repeats=scenario.repeats,
        seed=secrets.randbelow(2**31) if scenario.seed is None else scenario.seed,
        objectives={"": scenario.slo} if scenario.slo else place.objectives,
        sampling=Sampling(**scenario.sampling.model_dump()),
        material=Material(Tokens(tokenizer) if tokenizer else Words(), chat_format(tokenizer)),
        title=title,
    )
    # Plain lines, no bars: a bar is redrawn ten times a second by the process that measures.
    progress = Silent() if quiet else PlainLines(sys.stderr)
    return run(target, scenario.workload, scenario.load.loads, options, progress=progress)


def _show(report: Any, folder: Path | None, as_json: bool) -> None:
    from toolkit.bench.files import write_report
    from toolkit.bench.rows import summary_table

    written = write_report(report, folder) if folder else ()
    if as_json:
        print_json(report)
        return
    table = summary_table(report)
    partial = " (partial: interrupted)" if report.partial else ""
    right = ",".join(table.columns[1:])
    print_table(f"{report.title}{partial}", table.columns, table.rows, right=right)
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    if "in SLO" in table.columns:
        typer.echo(f"in SLO: within {_limits(report)}")
    if written:
        typer.echo(f"report: {written[-1]}")


def _limits(report: Any) -> str:
    """The targets that requests of this workload are held against."""
    chosen = getattr(report.workload, "request_class", None) or ""
    objective = report.objectives.get(chosen) or report.objectives[""]
    limits = objective.model_dump(exclude_none=True)
    return ", ".join(f"{key.removesuffix('_ms').upper()} {v:g} ms" for key, v in limits.items())


def _judge(report: Any, on_errors: bool, least: float | None) -> None:
    """Turn the report into the exit code.

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
    if on_errors and completed < requests:
        raise ValidationFailed(
            f"{requests - completed} of {requests} requests failed", details=list(report.notes)
        )
    if least is not None:
        _judge_slo(report, least)


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


def _load_changes(
    concurrency: str | None, rate: str | None, arrivals: str | None
) -> Iterator[Override]:
    if concurrency and rate:
        raise SpecError("--concurrency is a closed loop, --rate an open one: give one of them")
    if concurrency:
        loads = f"{{type: closed, concurrency: [{concurrency}]}}"
        yield from _change(f"--concurrency {concurrency}", "load", loads)
    if rate:
        yield from _change(f"--rate {rate}", "load", f"{{type: open, rate: [{rate}]}}")
    yield from _change("--arrivals", "load.arrivals", arrivals)


def _change(flag: str, field: str, value: object) -> Iterator[Override]:
    """The override that a flag stands for; errors then name the flag."""
    if value is not None:
        yield Override(tuple(field.split(".")), parse_value(str(value), flag), Place(flag))
