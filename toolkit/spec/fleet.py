"""The fleet file: several deployments of one machine, its GPUs, and the gateway before them all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from toolkit.errors import SpecError
from toolkit.spec.document import plain, walk
from toolkit.spec.explain import explain
from toolkit.spec.gateway import Gateway
from toolkit.spec.gpus import find_gpu
from toolkit.spec.loading import absolute_gateway, lists_models, load, read_document
from toolkit.spec.models import Deployment
from toolkit.spec.problems import refuse_all
from toolkit.spec.section import Section, as_tuple, refuse


class FleetModel(Section):
    """One deployment file; a text alone is its path."""

    file: str = Field(min_length=1, description="The deployment file, counted from this one.")
    replicas: int | None = Field(
        default=None, ge=1, le=64, description="Instead of serving.replicas of the file."
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, data: Any) -> Any:
        return {"file": data} if isinstance(data, str) else data


class FleetGpus(Section):
    """The GPUs of the machine, all alike."""

    type: str = Field(min_length=1, description="Model of GPU.", examples=["H100", "A100-80"])
    count: int = Field(default=1, ge=1, le=64, description="How many there are.")

    @model_validator(mode="after")
    def _known(self) -> FleetGpus:
        try:
            find_gpu(self.type)
        except SpecError as error:
            hint = (error.hint or "").removesuffix(", cpu").removesuffix("; or cpu")
            raise refuse(error.message, fields=("type",), hint=hint) from None
        return self


class Fleet(Section):
    """Deployments that share a machine."""

    models: Annotated[tuple[FleetModel, ...], BeforeValidator(as_tuple)] = Field(
        description="Deployment files, each a path or {file: PATH, replicas: N}."
    )
    gpus: FleetGpus | None = Field(
        default=None, description="GPUs to pack onto; those of this machine if absent."
    )
    gateway: Gateway | None = Field(
        default=None, description="The gateway before all; the first model's section if absent."
    )

    @model_validator(mode="after")
    def _some_model(self) -> Fleet:
        # A bound of the field's own would also count those that are wrong as missing.
        if self.models:
            return self
        raise refuse("models lists no file", fields=("models",), hint="write models: [a.yaml]")

    @model_validator(mode="after")
    def _replicas_are_a_model_s(self) -> Fleet:
        if self.gateway is None or not self.gateway.replicas:
            return self
        raise refuse(
            "further Tritons serve one model, and this gateway is for all of them",
            fields=("gateway.replicas",),
            hint="write gateway.replicas into the deployment file that they serve",
        )


@dataclass(frozen=True, slots=True)
class Member:
    """One model of a fleet.

    Attributes:
        path: Its deployment file.
        place: Where the fleet file names it.
        deployment: With the fleet's number of replicas and every path absolute.
        overrides: The ``--set`` values that make the file's deployment this one.
    """

    path: Path
    place: str
    deployment: Deployment
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadedFleet:
    """A fleet with its deployments, and the file that it came from."""

    fleet: Fleet
    path: Path
    members: tuple[Member, ...]

    @property
    def gateway(self) -> Gateway:
        """The gateway before all models, its paths absolute."""
        if self.fleet.gateway is None:
            return self.members[0].deployment.gateway
        return absolute_gateway(self.fleet.gateway, self.path)


def is_fleet(path: Path) -> bool:
    """Whether the file lists models; one that cannot be read is left to its loader to refuse."""
    try:
        return lists_models(read_document(path, environ=None))
    except SpecError:
        return False


def load_fleet(
    path: Path, *, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> LoadedFleet:
    """The fleet in ``path`` and the deployments that it names.

    Args:
        overrides: ``section.field=value`` each, for every one of its deployments.
        environ: As :func:`toolkit.spec.loading.load`.

    Raises:
        SpecError: the file, or one that it names, is wrong; two deployments have one name.
    """
    root = read_document(path, environ=environ)
    try:
        fleet = Fleet.model_validate(plain(root))
    except ValidationError as error:
        refuse_all(explain(error, Fleet, root))
        raise
    members = []
    for index, entry in enumerate(fleet.models):
        steps = list(walk(root, ("models", index)))
        place = str(steps[-1][1].place)
        members.append(_member(path.parent / entry.file, entry, place, overrides, environ))
    _refuse_namesakes(members)
    return LoadedFleet(fleet, path, tuple(members))


def _member(
    path: Path,
    entry: FleetModel,
    place: str,
    overrides: Sequence[str],
    environ: Mapping[str, str],
) -> Member:
    if not path.is_file():
        raise SpecError(
            f"there is no deployment file {path}",
            where=place,
            hint="paths count from the folder of the fleet file",
        )
    loaded = load(path, overrides=overrides, environ=environ)
    flags = (*overrides, *_replicas(entry, loaded.deployment))
    if len(flags) > len(overrides):
        loaded = load(path, overrides=flags, environ=environ)
    return Member(path, place, loaded.resolved(), flags)


def _replicas(entry: FleetModel, deployment: Deployment) -> Iterator[str]:
    """The overrides for another number of replicas, with as many GPU numbers to go with it."""
    if entry.replicas is None or entry.replicas == deployment.serving.replicas:
        return
    needed = entry.replicas * deployment.engine.parallelism.world_size
    yield f"serving.replicas={entry.replicas}"
    yield gpus_override(range(needed))


def gpus_override(gpus: Sequence[int]) -> str:
    """The override that gives a deployment these GPUs."""
    return f"serving.gpus=[{','.join(map(str, gpus))}]"


def _refuse_namesakes(members: Sequence[Member]) -> None:
    seen: dict[str, Member] = {}
    for member in members:
        name = member.deployment.name
        if name in seen:
            other = seen[name]
            same = other.path.resolve() == member.path.resolve()
            raise SpecError(
                f"two models are called {name}: {other.path} and {member.path}",
                where=member.place,
                hint=f"list it once: {{file: {other.path.name}, replicas: 2}}"
                if same
                else "clients tell models apart by name: change one",
            )
        seen[name] = member
