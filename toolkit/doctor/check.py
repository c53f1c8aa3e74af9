"""What a check is, what it finds, and what all of them together say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from toolkit.doctor import gpus, topology
from toolkit.doctor.machine import Machine
from toolkit.doctor.need import Need

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Result:
    """What one check found. ``mend`` is the command or change that puts it right."""

    status: Status
    detail: str
    mend: str = ""


def ok(detail: str) -> Result:
    """All is well."""
    return Result("ok", detail)


def warn(detail: str, mend: str = "") -> Result:
    """It works, but slower, or not for everything."""
    return Result("warn", detail, mend)


def fail(detail: str, mend: str) -> Result:
    """It does not work."""
    return Result("fail", detail, mend)


def skip(detail: str) -> Result:
    """There is nothing to check, or no way to."""
    return Result("skip", detail)


@dataclass(frozen=True)
class Context:
    """What checks look at.

    Attributes:
        machine: This machine.
        need: What a deployment needs; None when the machine is looked at for its own sake.
        workspace: Where artifacts would be kept.
    """

    machine: Machine
    need: Need | None = None
    workspace: Path = field(default_factory=lambda: Path(".toolkit"))

    @cached_property
    def reading(self) -> gpus.Reading:
        """The GPUs, asked once."""
        return gpus.read(self.machine)

    @cached_property
    def links(self) -> topology.Links:
        """Links between GPUs, asked once."""
        answer = self.machine.run("nvidia-smi", "topo", "-m")
        return topology.parse_matrix(answer.out) if answer and answer.ok else {}

    @property
    def used(self) -> tuple[gpus.FoundGpu, ...]:
        """The GPUs that the deployment uses; without one, all."""
        if self.need is None:
            return self.reading.gpus
        return tuple(gpu for gpu in self.reading.gpus if gpu.index in self.need.gpus)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Short, shown in the first column.
        proves: What is true when it is ok.
        run: Looks and tells.
        needed: Whether a deployment depends on it; every check runs where there is none.
    """

    name: str
    proves: str
    run: Callable[[Context], Result]
    needed: Callable[[Need], bool] = lambda need: True


@dataclass(frozen=True)
class Finding:
    """A check with what it found."""

    name: str
    proves: str
    status: Status
    detail: str
    mend: str


@dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        deployment: Whose needs were looked at; None for the machine itself.
        can_serve: Runtimes that can work here, as far as the machine tells.
    """

    findings: tuple[Finding, ...]
    reading: gpus.Reading
    deployment: str | None = None
    can_serve: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Finding, ...]:
        """What has to be mended."""
        return tuple(each for each in self.findings if each.status == "fail")

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "deployment": self.deployment,
            "ok": not self.failed,
            "runtimes": list(self.can_serve),
            "driver": self.reading.driver,
            "cuda": self.reading.cuda,
            "gpus": [asdict(gpu) for gpu in self.reading.gpus],
            "checks": [asdict(each) for each in self.findings],
        }
