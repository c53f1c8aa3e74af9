"""``toolkit plan FILE``: decide in seconds, without weights, whether a deployment can work."""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli.options import (
    DraftConfigOption,
    FileArgument,
    JsonOption,
    ModelConfigOption,
    OfflineOption,
    SetOption,
    WorkspaceOption,
)
from toolkit.cli.output import print_json, print_table
from toolkit.cli.plan_fleet import refuse_options, show_fleet
from toolkit.cli.plan_options import (
    AcceptanceOption,
    CalibrateOption,
    GpusOption,
    HtmlOption,
    KeepOption,
    OutputOption,
    PricesOption,
    PromptOption,
    RateOption,
    ReuseOption,
    TpotOption,
    TtftOption,
)
from toolkit.errors import SpecError

if TYPE_CHECKING:
    from toolkit.capacity.prices import Prices
    from toolkit.capacity.traffic import Traffic
    from toolkit.checkpoint.architecture import Architecture
    from toolkit.pipeline.planning import Plan
    from toolkit.spec.gpus import Gpu
    from toolkit.spec.models import Deployment

_PROMPT, _OUTPUT = 1000, 250


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan_command)


def plan_command(
    file: FileArgument,
    gpu: GpusOption = None,
    model_config: ModelConfigOption = None,
    draft_config: DraftConfigOption = None,
    set_: SetOption = None,
    rate: RateOption = None,
    prompt_tokens: PromptOption = None,
    output_tokens: OutputOption = None,
    slo_ttft_ms: TtftOption = None,
    slo_tpot_ms: TpotOption = None,
    reuse: ReuseOption = 0.0,
    acceptance: AcceptanceOption = None,
    keep_formats: KeepOption = False,
    prices: PricesOption = None,
    calibrate: CalibrateOption = None,
    html: HtmlOption = None,
    offline: OfflineOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what FILE would run on, with what memory and how fast, and refuse what cannot work.

    With --rate: which deployment of the model carries so many requests a second at least cost.
    A fleet file, one with models:, is packed onto its GPUs: which model goes where, and how.
    Reads the model's config.json and no weight. Exit code 2: it cannot work, and why.
    """
    from toolkit.spec.fleet import is_fleet

    if is_fleet(file):
        refuse_options(
            {
                "--gpu": gpu,
                "--model-config": model_config,
                "--draft-config": draft_config,
                "--rate": rate,
                "--calibrate": calibrate,
                "--html": html,
                "--reuse": reuse,
                "--acceptance": acceptance,
            }
        )
        show_fleet(file, set_ or (), offline=offline, workspace=workspace, json=json)
        return
    if rate is None:
        of_search = {"--slo-ttft-ms": slo_ttft_ms, "--slo-tpot-ms": slo_tpot_ms, "--prices": prices}
        _need_rate(of_search)
    case = _case(file, set_ or (), workspace, model_config, draft_config, offline, json)
    sizes = prompt_tokens, output_tokens
    traffic = _traffic(case.deployment, sizes, rate is not None, reuse, acceptance)
    if calibrate is not None and (rate is not None or html is not None):
        raise SpecError(
            "measures are fitted to, or a plan is made: one at a time",
            where="--calibrate",
            hint="calibrate first; --rate and --html then use what was found",
        )
    if rate is not None:
        targets = slo_ttft_ms, slo_tpot_ms
        _search(case, traffic, rate, targets, gpu or (), prices, keep_formats, html)
    elif calibrate is not None:
        _calibrate(case, _plan(case, gpu or ()), calibrate)
    else:
        left_out = _left_out(case.deployment, acceptance)
        _show(case, _plan(case, gpu or ()), traffic, html, left_out)


def _need_rate(given: Mapping[str, object]) -> None:
    for option, value in given.items():
        if value is not None:
            raise SpecError(
                "is for a search, and no load is given", where=option, hint="add --rate"
            )


@dataclass(frozen=True)
class _Case:
    """What was asked about, and how it is shown."""

    deployment: Deployment
    arch: Architecture
    draft: Architecture | None
    root: Path
    json: bool


def _case(
    file: Path,
    overrides: Sequence[str],
    workspace: Path | None,
    model_config: Path | None,
    draft_config: Path | None,
    offline: bool,
    json: bool,
) -> _Case:
    from toolkit.pipeline.architectures import draft_architecture, target_architecture
    from toolkit.spec.loading import load
    from toolkit.workspace import Workspace, default_root

    deployment = load(file, overrides=overrides).resolved()
    store = Workspace(workspace or default_root(file))
    arch = target_architecture(deployment, store, model_config=model_config, offline=offline)
    draft = draft_architecture(deployment, arch, store, model_config=draft_config, offline=offline)
    return _Case(deployment, arch, draft, store.root, json)


def _plan(case: _Case, gpus: Sequence[str]) -> Plan:
    from toolkit.doctor.need import resolved_runtime
    from toolkit.pipeline.planning import detected_gpu, make_plan

    if len(gpus) > 1:
        raise SpecError(
            "several GPUs", where="--gpu", hint="name one, or give --rate to compare them"
        )
    gpu = gpus[0] if gpus else None
    if gpu is None and case.deployment.serving.gpu is None:
        gpu = detected_gpu() if resolved_runtime(case.deployment) != "openvino" else None
    return make_plan(case.deployment, case.arch, draft=case.draft, gpu=gpu)


def _traffic(
    deployment: Deployment,
    sizes: tuple[int | None, int | None],
    free: bool,
    reuse: float,
    acceptance: float | None,
) -> Traffic:
    """What was asked, or sizes of a chat; within the file's limits unless they are ``free``."""
    from toolkit.capacity.traffic import Traffic
    from toolkit.pipeline.sizing import checked, drafted

    if reuse and not deployment.engine.kv_cache.reuse:
        raise SpecError(
            "the file keeps no cache between requests: engine.kv_cache.reuse is false",
            where="--reuse",
            hint="leave --reuse out, or set engine.kv_cache.reuse to true",
        )
    most = deployment.engine.limits.max_seq_len
    output = sizes[1] or (_OUTPUT if free else max(min(_OUTPUT, most // 5), 1))
    prompt = sizes[0] or (_PROMPT if free else max(min(_PROMPT, most - output), 1))
    if acceptance is None:
        return Traffic(prompt, output, reuse)
    engine = deployment.engine
    return Traffic(prompt, output, reuse, acceptance, drafted(engine), checked(engine))


def _search(
    case: _Case,
    traffic: Traffic,
    rate: float,
    targets_ms: Sequence[float | None],
    gpus: Sequence[str],
    prices: Path | None,
    keep_formats: bool,
    html: Path | None,
) -> None:
    from toolkit.capacity.prices import read_prices
    from toolkit.capacity.search import Goal
    from toolkit.cli.plan_speed import NOTHING, note_lines, options_json, print_options
    from toolkit.pipeline.calibrating import read_known
    from toolkit.pipeline.sizing import find_deployments

    table = read_prices(prices)
    wanted = _priced(gpus, table)
    ttft, tpot = (math.inf if ms is None else ms / 1000 for ms in targets_ms)
    goal = Goal(traffic, rate, ttft, tpot)
    options = find_deployments(
        case.deployment,
        case.arch,
        goal,
        wanted,
        table,
        read_known(case.root),
        draft=case.draft,
        keep_formats=keep_formats,
    )
    if html is not None:
        from toolkit.cli.plan_page import search_page, write_page

        told = note_lines(options, table) if options else [NOTHING]
        write_page(html, search_page(case.deployment.name, options, goal, table, told))
    if case.json:
        print_json(options_json(options, goal, table))
    else:
        print_options(options, goal, table)
    if not options:
        raise typer.Exit(2)


def _priced(names: Sequence[str], prices: Prices) -> list[Gpu]:
    from toolkit.spec.gpus import GPUS, find_gpu

    wanted = [find_gpu(name) for name in names]
    for gpu in wanted:
        if prices.of(gpu.name) is None:
            raise SpecError(
                f"no price for {gpu.name}", where="--prices", hint=f"add it under gpus: {gpu.name}"
            )
    return wanted or [gpu for gpu in GPUS if prices.of(gpu.name)]


def _calibrate(case: _Case, plan: Plan, report: Path) -> None:
    from toolkit.bench.files import read_report
    from toolkit.bench.host_speed import measure_host
    from toolkit.cli.plan_speed import calibration_json, print_calibration
    from toolkit.pipeline.calibrating import check_report
    from toolkit.pipeline.sizing import calibrate_from, host_device

    measured = read_report(report)
    notes = check_report(measured, case.deployment.name, str(report))
    host = None
    if plan.runtime == "openvino":
        speed = measure_host()
        host = host_device(speed.bandwidth, speed.rate)
    made, kept = calibrate_from(plan, case.arch, measured, case.root, draft=case.draft, host=host)
    if case.json:
        print_json(calibration_json(made, kept, notes))
    else:
        print_calibration(made, kept, notes)


def _left_out(deployment: Deployment, acceptance: float | None) -> list[str]:
    """What the times do not count, though the file or the command names it."""
    if deployment.engine.speculation is None and acceptance is not None:
        return ["--acceptance changes nothing: the file has no engine.speculation."]
    if deployment.engine.speculation is not None and acceptance is None:
        return ["Drafts are not counted: --acceptance says how likely one is accepted."]
    return []


def _show(
    case: _Case, plan: Plan, traffic: Traffic, html: Path | None, left_out: Sequence[str]
) -> None:
    from toolkit.cli.plan_speed import balance_lines, gain_lines, print_speed, speed_json
    from toolkit.pipeline.calibrating import read_known
    from toolkit.pipeline.sizing import speed_of

    speed = speed_of(plan, case.arch, traffic, read_known(case.root), draft=case.draft)
    if html is not None:
        from toolkit.cli.plan_page import plan_page, write_page
        from toolkit.pipeline.sizing import memory_on_each

        others = memory_on_each(case.deployment, case.arch, draft=case.draft) if plan.gpu else []
        told = (
            [*balance_lines(speed), *gain_lines(speed), *left_out] if speed else [_no_times(plan)]
        )
        write_page(html, plan_page(plan, others, speed, told))
    if case.json:
        print_json({**as_json(plan), "speed": speed_json(speed)})
        return
    _print(plan)
    if speed is not None:
        print_speed(speed)
        for sentence in left_out:
            typer.echo(sentence)
    else:
        typer.echo(_no_times(plan))


def _no_times(plan: Plan) -> str:
    if plan.memory is None:
        return "No times are estimated: no GPU is named (--gpu NAME)."
    if plan.gpu is None:
        return (
            "No times are estimated: this processor was not calibrated. toolkit bench FILE, then "
            "toolkit plan FILE --calibrate REPORT."
        )
    return "No times are estimated: the layers of this model type are not known, or none fits."


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
    memory = plan.memory
    return {
        "deployment": plan.deployment.name,
        "runtime": plan.runtime,
        "release": plan.release,
        "container": plan.container,
        "gpu": plan.gpu,
        "gpus_per_replica": plan.gpus_per_replica,
        "replicas": plan.deployment.serving.replicas,
        "weights": plan.resolved.weights.name,
        "kv_cache": plan.resolved.kv_cache.name,
        "block_size": plan.resolved.block_size,
        "commands": list(plan.commands),
        "arguments": dict(plan.arguments),
        "memory": None
        if memory is None
        else {
            "fixed": [
                {"name": line.name, "bytes": line.bytes, "how": line.how} for line in memory.fixed
            ],
            "kv_cache_bytes": memory.pool,
            "kv_tokens": memory.kv_tokens,
            "full_requests": memory.full_requests,
            "longest_request": plan.longest_request,
        },
        "notes": list(plan.notes),
    }


def _print(plan: Plan) -> None:
    resolved = plan.resolved
    block = f", blocks of {resolved.block_size}" if resolved.block_size else ""
    rows = [
        ("runtime", plan.runtime),
        ("release", plan.release and f"TensorRT-LLM {plan.release}"),
        ("container", plan.container),
        ("formats", f"{resolved.weights.name} weights{block}, {resolved.kv_cache.name} KV cache"),
        ("GPU", _gpus(plan)),
    ]
    # Without a sum nobody knows whether it fits.
    open_ = "" if plan.memory else ", if it fits: no GPU is named, so memory was not checked"
    print_table(
        f"{plan.deployment.name} can be built{open_}", ("what", "which"), [r for r in rows if r[1]]
    )
    _print_memory(plan)
    for command in plan.commands:
        typer.echo(f"\n{command}")
    if plan.arguments:
        typer.echo("\nLLM API arguments:")
        typer.echo(json_module.dumps(plan.arguments, indent=2))
    for note in plan.notes:
        typer.echo(f"note: {note}")


def _gpus(plan: Plan) -> str | None:
    if not plan.gpus_per_replica:
        return None
    copies = plan.deployment.serving.replicas
    return f"{copies} x {plan.gpus_per_replica} x {plan.gpu or 'whatever the machine has'}"


def _print_memory(plan: Plan) -> None:
    memory = plan.memory
    if memory is None:
        return
    typer.echo("\nMemory of the fullest GPU:" if plan.gpu else "\nMemory of this machine:")
    for line in memory.lines():
        typer.echo(f"  {line}")
    limits = plan.deployment.engine.limits
    typer.echo(
        f"The KV cache holds {memory.kv_tokens} tokens: {memory.full_requests} requests of "
        f"max_seq_len ({limits.max_seq_len}) at once, or one of {plan.longest_request}."
    )
