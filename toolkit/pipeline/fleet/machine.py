"""The GPUs that a fleet is packed onto: those that its file names, or this machine's."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.doctor.gpus import read_gpus
from toolkit.doctor.need import resolved_runtime
from toolkit.errors import SpecError
from toolkit.pipeline.planning import detected_gpu
from toolkit.spec.fleet import Fleet, Member
from toolkit.spec.gpus import Gpu, find_gpu
from toolkit.spec.models import Deployment


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs that are all alike.

    Attributes:
        gpu: Their model; None where there are none, or they are not known.
        numbers: As ``serving.gpus`` names them.
        named: By the fleet file.
    """

    gpu: Gpu | None
    numbers: tuple[int, ...]
    named: bool

    def __str__(self) -> str:
        return f"{len(self.numbers)} x {self.gpu.name}" if self.gpu else "no GPU"


def machine_of(fleet: Fleet) -> Machine:
    """The machine that ``fleet`` is for."""
    if fleet.gpus is not None:
        return Machine(find_gpu(fleet.gpus.type), tuple(range(fleet.gpus.count)), named=True)
    found = tuple(sorted(each.index for each in read_gpus()))
    name = detected_gpu()
    return Machine(find_gpu(name) if name else None, found, named=False)


def is_on_gpu(deployment: Deployment, machine: Machine) -> bool:
    """Whether a model takes GPUs; ``auto`` does where the fleet file names some."""
    runtime = deployment.engine.runtime
    if runtime == "auto" and machine.named:
        return True
    return resolved_runtime(deployment) != "openvino"


def check_gpus(member: Member, machine: Machine) -> Gpu:
    """The model of GPU for ``member``.

    Raises:
        SpecError: there is none, or this machine's are not known or not alike.
    """
    if machine.gpu is not None:
        return machine.gpu
    reason = (
        "the GPUs of this machine are not all alike, or not known"
        if machine.numbers
        else "this machine has none"
    )
    raise SpecError(
        f"{member.deployment.name} is for GPUs, and {reason}",
        where=member.place,
        hint="write them into the fleet file: gpus: {type: H100, count: 4}",
    )
