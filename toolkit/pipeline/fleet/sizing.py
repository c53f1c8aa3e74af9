"""What each model of a fleet takes, by its own plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.capacity import MemoryPlan
from toolkit.capacity.host import HostPlan
from toolkit.capacity.packing import Misfit, Packing, demand_of, pack
from toolkit.capacity.placing import Demand
from toolkit.checkpoint.architecture import Architecture
from toolkit.errors import SpecError, ToolkitError, UnsupportedError
from toolkit.pipeline.fleet.machine import Machine, check_gpus, is_on_gpu
from toolkit.pipeline.planning import Plan, make_plan
from toolkit.spec.fleet import Member
from toolkit.spec.models import Deployment


@dataclass(frozen=True, slots=True)
class Shapes:
    """A model and its draft, where it has one."""

    arch: Architecture
    draft: Architecture | None = None


@dataclass(frozen=True, slots=True)
class Sized:
    """A model of the fleet with its plan for a GPU, or the host, of its own."""

    member: Member
    deployment: Deployment
    shapes: Shapes
    plan: Plan

    @property
    def on_gpu(self) -> bool:
        """It takes GPUs."""
        return self.plan.gpu is not None

    @property
    def memory(self) -> MemoryPlan | HostPlan:
        """The sum of a GPU, or of the host, that is its own."""
        assert self.plan.memory is not None, "a GPU is named, or it is the host's"
        return self.plan.memory

    @property
    def demand(self) -> Demand:
        """For the packing."""
        engine = self.deployment.engine
        return demand_of(
            self.deployment.name,
            self.memory,
            engine,
            replicas=self.deployment.serving.replicas if self.on_gpu else 1,
            gpus=engine.parallelism.world_size if self.on_gpu else 1,
        )


def sized(member: Member, deployment: Deployment, shapes: Shapes, machine: Machine) -> Sized:
    """The model on a GPU, or a host, of its own.

    Raises:
        SpecError, UnsupportedError: it cannot work even so; the message names the model.
    """
    on_gpu = is_on_gpu(deployment, machine)
    if not on_gpu and deployment.serving.replicas > 1:
        raise SpecError(
            f"{deployment.name} runs on the CPU, where one engine has all of it",
            where=member.place,
            hint="leave its replicas at 1",
        )
    gpu = check_gpus(member, machine).name if on_gpu else None
    try:
        plan = make_plan(deployment, shapes.arch, draft=shapes.draft, gpu=gpu)
    except (SpecError, UnsupportedError) as error:
        raise _named(error, member) from error
    return Sized(member, deployment, shapes, plan)


def _named(error: ToolkitError, member: Member) -> ToolkitError:
    """The same refusal, told of one model of several."""
    return type(error)(
        f"{member.deployment.name}: {error.message}",
        where=f"{member.path}, {error.where}" if error.where else str(member.path),
        hint=error.hint,
        details=error.details,
    )


def packed(models: Sequence[Sized], machine: Machine, *, search: bool = True) -> Packing | Misfit:
    """The models that take GPUs on those of ``machine``; ``search`` is that of :func:`pack`."""
    demands = [each.demand for each in models if each.on_gpu]
    memory = machine.gpu.memory if machine.gpu else 0
    return pack(demands, machine.numbers, memory, search=search)


def packed_on_host(models: Sequence[Sized]) -> Packing | Misfit | None:
    """The models that share this machine's memory; None where there are none."""
    on_host = [each for each in models if not each.on_gpu]
    # Read once for each plan, while the machine goes on: the least of them is safe.
    free = [each.memory.available for each in on_host if isinstance(each.memory, HostPlan)]
    return pack([each.demand for each in on_host], [0], min(free)) if free else None
