"""The ablation as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.bench.ablation.report import AblationReport
from toolkit.bench.ablation.tables import sentences, tables
from toolkit.bench.rows import markdown

METHOD = (
    "Every round measures every rung once, each on a server started for it, with the round's own "
    "prompts. Ratios are paired by round and averaged as logarithms; intervals are 95%, Student's "
    "t over the rounds. Above 1 is better. Quantization is every number format: of weights, of the "
    "KV cache and, on CPUs, of arithmetic: engine.dtype bfloat16 is part of it there, and rungs "
    "without it compute in float32."
)


def render_markdown(report: AblationReport) -> str:
    """The whole report."""
    title = f"# {report.title}{' (partial: interrupted)' if report.partial else ''}"
    parts = [title, "\n".join(f"- **{name}**: {text}" for name, text in facts(report)), METHOD]
    if report.notes:
        parts.append("\n".join(f"> {note}\n>" for note in report.notes).removesuffix("\n>"))
    for load in report.loads:
        for table in tables(report, load):
            parts += [f"## {table.title}", markdown(table)]
        said = list(sentences(report, load))
        if said:
            parts += [f"## {load.label}: what each step did", "\n".join(f"- {one}" for one in said)]
    if report.left_out:
        parts += ["## Not measured on its own", "\n".join(f"- {one}" for one in left_out(report))]
    parts += ["## What each rung is", "\n".join(f"- {one}" for one in rungs(report))]
    return "\n\n".join(parts) + "\n"


def facts(report: AblationReport) -> Iterator[tuple[str, str]]:
    """What was measured how, where and when."""
    machine, stop = report.machine, report.stop
    settings = report.workload.model_dump(mode="json", exclude_none=True)
    kind = settings.pop("type")
    yield "workload", f"{kind}: " + ", ".join(f"{k} {_short(v)}" for k, v in settings.items() if v)
    if stop.requests:
        yield "slot", f"{stop.requests} requests after {stop.warmup_requests} of warm-up"
    else:
        yield "slot", f"{stop.duration:g} s after {stop.warmup:g} s of warm-up"
    yield "rounds", str(report.rounds)
    for name, objective in report.objectives.items():
        limits = objective.model_dump(exclude_none=True)
        if limits:
            text = (f"{key.removesuffix('_ms').upper()} {v:g} ms" for key, v in limits.items())
            yield f"SLO {name}".strip(), ", ".join(text)
    memory = f"{machine.memory_bytes / 2**30:.0f} GiB"
    yield "machine", f"{machine.cpu}, {machine.cores} cores, {memory}, {machine.system}"
    yield "made", f"{report.created} by toolkit {report.toolkit_version}, seed {report.seed}"


def left_out(report: AblationReport) -> Iterator[str]:
    """Each step that has no rung of its own, with the reason."""
    return (f"{one.title}: {one.reason}" for one in report.left_out)


def rungs(report: AblationReport) -> Iterator[str]:
    """Each rung with what it changes in the file and how it was asked."""
    for rung in report.rungs:
        changes = ", ".join(rung.changes) or "the file as it is"
        yield f"{rung.title} (`{rung.key}`, {rung.protocol}): {changes}"


def _short(value: object) -> str:
    if isinstance(value, dict) and value.get("distribution") == "fixed":
        return str(value["tokens"])
    if isinstance(value, dict):
        return "(" + ", ".join(f"{k} {v}" for k, v in value.items()) + ")"
    return str(value)
