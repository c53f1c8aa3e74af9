"""``toolkit plan FILE``: decide in seconds, without weights, whether a deployment can work."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from toolkit.pipeline.planning import Plan

GpuOption = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="Model of GPU, such as H100; serving.gpu, or this machine's, if absent.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan_command)


def plan_command(
    file: FileArgument,
    gpu: GpuOption = None,
    model_config: ModelConfigOption = None,
    draft_config: DraftConfigOption = None,
    set_: SetOption = None,
    offline: OfflineOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what FILE would run on, with what memory, and refuse what cannot work.

    Reads the model's config.json and no weight. Exit code 2: it cannot work, and why.
    """
    from toolkit.doctor.need import resolved_runtime
    from toolkit.pipeline.architectures import draft_architecture, target_architecture
    from toolkit.pipeline.planning import detected_gpu, make_plan
    from toolkit.spec.loading import load
    from toolkit.workspace import Workspace, default_root

    deployment = load(file, overrides=set_ or ()).resolved()
    store = Workspace(workspace or default_root(file))
    arch = target_architecture(deployment, store, model_config=model_config, offline=offline)
    draft = draft_architecture(deployment, arch, store, model_config=draft_config, offline=offline)
    if gpu is None and deployment.serving.gpu is None:
        gpu = detected_gpu() if resolved_runtime(deployment) != "openvino" else None
    plan = make_plan(deployment, arch, draft=draft, gpu=gpu)
    if json:
        print_json(as_json(plan))
    else:
        _print(plan)


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
