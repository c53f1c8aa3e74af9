"""The ``--set`` values and commands that deploy each model of a fleet in its place."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit.capacity.packing import Grant
from toolkit.pipeline.fleet.machine import Machine
from toolkit.spec.fleet import Member, gpus_override
from toolkit.spec.gateway import Gateway
from toolkit.spec.models import Ports

_MIB = 2**20
_APART = 10
"""Ports lie so far apart that those of one server stay in a row."""

_HIGHEST = 65535


def overrides_of(
    member: Member, grant: Grant, machine: Machine, ports: Ports, *, on_gpu: bool
) -> tuple[str, ...]:
    """All overrides that make ``member`` what the packing says."""
    # The numbers that stood in for GPUs before they were known give way.
    own = [each for each in member.overrides if not each.startswith("serving.gpus=")]
    return (*own, *_placed(member, grant, machine, on_gpu), *_ports(member, ports))


def _placed(member: Member, grant: Grant, machine: Machine, on_gpu: bool) -> Iterator[str]:
    if on_gpu:
        assert machine.gpu is not None, "models were sized for it"
        # Also what makes an open runtime one of GPUs.
        if member.deployment.serving.gpu != machine.gpu.name:
            yield f"serving.gpu={machine.gpu.name}"
        yield gpus_override(grant.gpus)
    if grant.pool is not None:
        whole = grant.pool % _MIB == 0
        yield f"engine.kv_cache.size={f'{grant.pool // _MIB}MiB' if whole else grant.pool}"


def _ports(member: Member, ports: Ports) -> Iterator[str]:
    if ports != member.deployment.serving.ports:
        written = ", ".join(f"{name}: {port}" for name, port in ports.model_dump().items())
        yield f"serving.ports={{{written}}}"
    yield "gateway.enabled=false"


def settle_ports(members: Sequence[Member], gateway: Gateway) -> list[Ports]:
    """Ports for each, none of them twice; a server that is listed earlier keeps its own."""
    taken = {gateway.port} - {0}
    settled = []
    for member in members:
        ports = _free(member.deployment.serving.ports, taken)
        taken |= {*ports.model_dump().values()} - {0}
        settled.append(ports)
    return settled


def _free(wanted: Ports, taken: set[int]) -> Ports:
    asked = wanted.model_dump()
    for step in range(0, _HIGHEST, _APART):
        moved = {name: port + step if port else 0 for name, port in asked.items()}
        if max(moved.values()) > _HIGHEST:
            break
        if not taken & set(moved.values()):
            return Ports(**moved)
    return Ports(**dict.fromkeys(asked, 0))


def deploy_command(path: Path, overrides: Sequence[str], workspace: Path | None) -> str:
    """``toolkit deploy`` as a shell takes it."""
    words = ["toolkit", "deploy", str(path)]
    for each in overrides:
        words += ["--set", each]
    return shlex.join([*words, *_workspace(workspace)])


def gateway_command(path: Path, overrides: Sequence[str], workspace: Path | None) -> str:
    """``toolkit gateway`` for the whole fleet."""
    words = ["toolkit", "gateway", str(path)]
    for each in overrides:
        words += ["--set", each]
    return shlex.join([*words, *_workspace(workspace)])


def _workspace(workspace: Path | None) -> list[str]:
    return ["--workspace", str(workspace)] if workspace else []
