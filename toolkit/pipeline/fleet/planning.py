"""A place for every model of a fleet, checked against its own memory sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.capacity.packing import Misfit, Packing
from toolkit.pipeline.fleet.machine import Machine, machine_of
from toolkit.pipeline.fleet.overrides import (
    deploy_command,
    gateway_command,
    overrides_of,
    settle_ports,
)
from toolkit.pipeline.fleet.refusal import no_room, no_room_on_host
from toolkit.pipeline.fleet.sizing import Shapes, Sized, packed, packed_on_host, sized
from toolkit.spec.fleet import LoadedFleet, Member
from toolkit.spec.loading import load
from toolkit.spec.models import Ports


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model in its place.

    Attributes:
        gpus: Its GPUs, replica by replica; none on the CPU.
        overrides: The ``--set`` values that put it there.
        command: ``toolkit deploy`` with them.
        notes: Of its own plan.
    """

    name: str
    path: Path
    runtime: str
    replicas: int
    gpus: tuple[int, ...]
    kv_tokens: int
    overrides: tuple[str, ...]
    command: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """All models in their places.

    Attributes:
        packing: On the machine's GPUs.
        host: In the machine's own memory; None where no model runs on the CPU.
        gateway: The command for the gateway before them all.
    """

    path: Path
    machine: Machine
    packing: Packing
    host: Packing | None
    models: tuple[PlannedModel, ...]
    gateway: str
    notes: tuple[str, ...]


def plan_fleet(
    loaded: LoadedFleet,
    shapes_of: Callable[[Member], Shapes],
    *,
    overrides: Sequence[str] = (),
    workspace: Path | None = None,
) -> FleetPlan:
    """Pack the fleet.

    Args:
        loaded: The fleet with its deployments.
        shapes_of: The architectures of a model.
        overrides: What ``loaded`` was loaded with, for the gateway's command.
        workspace: For the commands; each file's own if absent.

    Raises:
        SpecError: a model cannot be planned, or is for GPUs that are not there.
        UnsupportedError: a model has no place; the details hold the sums, the hint what would fit.
    """
    machine = machine_of(loaded.fleet)
    models = [sized(each, each.deployment, shapes_of(each), machine) for each in loaded.members]
    packing, host = packed(models, machine), packed_on_host(models)
    if isinstance(packing, Misfit):
        raise no_room(packing, models, machine)
    if isinstance(host, Misfit):
        raise no_room_on_host(host, models)
    ports = settle_ports(loaded.members, loaded.gateway)
    planned = [
        _planned(
            model, (packing if model.on_gpu or host is None else host), machine, each, workspace
        )
        for model, each in zip(models, ports, strict=True)
    ]
    return FleetPlan(
        path=loaded.path,
        machine=machine,
        packing=packing,
        host=host,
        models=tuple(planned),
        gateway=gateway_command(loaded.path, overrides, workspace),
        notes=tuple(_notes(packing, host)),
    )


def _planned(
    model: Sized, packing: Packing, machine: Machine, ports: Ports, workspace: Path | None
) -> PlannedModel:
    member, grant = model.member, packing.grant(model.deployment.name)
    overrides = overrides_of(member, grant, machine, ports, on_gpu=model.on_gpu)
    # The file with these very overrides is planned once more: what is printed is what works.
    final = load(member.path, overrides=overrides).resolved()
    checked = sized(member, final, model.shapes, machine)
    return PlannedModel(
        name=final.name,
        path=member.path,
        runtime=checked.plan.runtime,
        replicas=final.serving.replicas,
        gpus=grant.gpus if model.on_gpu else (),
        kv_tokens=checked.memory.kv_tokens,
        overrides=overrides,
        command=deploy_command(member.path, overrides, workspace),
        notes=checked.plan.notes,
    )


def _notes(packing: Packing, host: Packing | None) -> Iterator[str]:
    shared = [use.gpu for use in packing.gpus if len(use.shares) > 1]
    if not shared and not (host and len(host.grants) > 1):
        return
    yield (
        "models that share memory: deploy one after the other, so that each finds the memory as "
        "it is when the others have theirs"
    )
    if shared:
        yield "models on one GPU also share its processors: each is slower while the other is busy"
    for each, where in ((packing, "on shared GPUs"), (host, "on this machine")):
        if each is None or not any(len(use.shares) > 1 for use in each.gpus) or each.level == 1:
            continue
        what = f"{each.level:.4g} x max_batch_size requests" if each.level else "one request"
        yield (
            f"KV caches {where} are sure to hold {what} of max_seq_len at once; others are "
            "shorter or wait"
        )
