"""``toolkit plan FLEET.yaml``: which GPUs each model gets, and how to deploy it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli.output import counted, print_json, print_table

if TYPE_CHECKING:
    from toolkit.capacity.packing import GpuUse
    from toolkit.pipeline.fleet import FleetPlan, PlannedModel
    from toolkit.pipeline.fleet.sizing import Shapes
    from toolkit.spec.fleet import Member

_GIB = 2**30
_CONFIG = "a model's source may be a folder with its config.json alone"
_INSTEAD = {
    "--gpu": "a fleet file names its GPUs itself: gpus: {type: H100, count: 4}",
    "--model-config": _CONFIG,
    "--draft-config": _CONFIG,
}
"""What a fleet file has in place of an option."""


def refuse_options(given: Mapping[str, object]) -> None:
    """Refuse options that are about one deployment.

    Raises:
        SpecError: one has a value.
    """
    from toolkit.errors import SpecError

    for option, value in given.items():
        if value:
            raise SpecError(
                f"{option} is for one deployment, and this file lists models",
                where=option,
                hint=_INSTEAD.get(option, "plan the file of each model on its own"),
            )


def show_fleet(
    file: Path, overrides: Sequence[str], *, offline: bool, workspace: Path | None, json: bool
) -> None:
    """Pack the fleet in ``file`` and print the result.

    Raises:
        SpecError, UnsupportedError: it cannot work, and why.
    """
    from toolkit.pipeline.fleet import plan_fleet
    from toolkit.spec.fleet import load_fleet

    def shapes_of(member: Member) -> Shapes:
        return _shapes(member, offline, workspace)

    loaded = load_fleet(file, overrides=overrides)
    plan = plan_fleet(loaded, shapes_of, overrides=overrides, workspace=workspace)
    if json:
        print_json(as_json(plan))
    else:
        _print(plan)


def _shapes(member: Member, offline: bool, workspace: Path | None) -> Shapes:
    from toolkit.errors import EnvironmentError_, SpecError
    from toolkit.pipeline.architectures import draft_architecture, target_architecture
    from toolkit.pipeline.fleet.sizing import Shapes
    from toolkit.workspace import Workspace, default_root

    store = Workspace(workspace or default_root(member.path))
    try:
        arch = target_architecture(member.deployment, store, offline=offline)
        draft = draft_architecture(member.deployment, arch, store, offline=offline)
    except (SpecError, EnvironmentError_) as error:
        # Its own hint is an option that a fleet does not have: config.json of which model?
        raise type(error)(
            f"{member.deployment.name}: {error.message}",
            where=f"{member.path}, {error.where}",
            hint=f"toolkit checkpoint fetch or toolkit build {member.path} gets it; a folder with "
            "config.json alone is enough as a source for planning",
            details=error.details,
        ) from error
    return Shapes(arch, draft)


def as_json(plan: FleetPlan) -> dict[str, Any]:
    """The plan for programs."""
    gpu = plan.machine.gpu
    return {
        "fleet": str(plan.path),
        "gpu": gpu.name if gpu else None,
        "gpus": [{"gpu": use.gpu, **_use_json(use)} for use in plan.packing.gpus],
        "host": _use_json(plan.host.gpus[0]) if plan.host else None,
        "models": [_model_json(model) for model in plan.models],
        "commands": [*(model.command for model in plan.models), plan.gateway],
        "notes": list(plan.notes),
    }


def _use_json(use: GpuUse) -> dict[str, Any]:
    return {
        "memory_bytes": use.memory,
        "used_bytes": use.used,
        "left_bytes": use.left,
        "models": [
            {
                "name": share.name,
                "replica": share.replica,
                "fixed_bytes": share.fixed,
                "kv_cache_bytes": share.pool,
                "kv_tokens": share.tokens,
            }
            for share in use.shares
        ],
    }


def _model_json(model: PlannedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "file": str(model.path),
        "runtime": model.runtime,
        "replicas": model.replicas,
        "gpus": list(model.gpus),
        "kv_tokens": model.kv_tokens,
        "overrides": list(model.overrides),
        "command": model.command,
        "notes": list(model.notes),
    }


def _print(plan: FleetPlan) -> None:
    uses = [(str(use.gpu), use) for use in plan.packing.gpus]
    if plan.host:
        uses.append(("memory", plan.host.gpus[0]))
    where = f"{plan.machine}" if plan.machine.gpu else "this machine"
    print_table(
        f"{counted(len(plan.models), 'model')} on {where}",
        (
            "GPU" if plan.machine.gpu else "where",
            "models",
            "used GiB",
            "left GiB",
            "KV tokens each",
        ),
        [row for name, use in uses for row in _rows(name, use, plan)],
        right="used GiB,left GiB,KV tokens each",
    )
    typer.echo("\nDeploy them so, then start the gateway before them all:")
    for model in plan.models:
        typer.echo(f"  {model.command}")
    typer.echo(f"  {plan.gateway}")
    for note in plan.notes:
        typer.echo(f"note: {note}")
    names: dict[str, list[str]] = {}
    for model in plan.models:
        for note in model.notes:
            names.setdefault(note, []).append(model.name)
    for note, who in names.items():
        typer.echo(f"note: {', '.join(who)}: {note}")


def _rows(name: str, use: GpuUse, plan: FleetPlan) -> list[tuple[str, str, str, str, str]]:
    """A row for each model of a GPU; the first tells what the GPU has left."""
    replicas = {model.name: model.replicas for model in plan.models}
    left = f"{use.left / _GIB:.1f}"
    if not use.shares:
        return [(name, "", f"{0:.1f}", left, "")]
    rows = []
    for number, share in enumerate(use.shares):
        of = f" {share.replica + 1}/{replicas[share.name]}" if replicas[share.name] > 1 else ""
        used = f"{(share.fixed + share.pool) / _GIB:.1f}"
        first = number == 0
        rows.append(
            (name if first else "", share.name + of, used, left if first else "", str(share.tokens))
        )
    return rows
