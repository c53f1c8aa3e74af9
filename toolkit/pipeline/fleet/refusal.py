"""Which model of a fleet has no place, what is missing, and what would fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from toolkit.capacity.packing import GpuUse, Misfit, Packing
from toolkit.errors import SpecError, UnsupportedError
from toolkit.pipeline.fleet.machine import Machine
from toolkit.pipeline.fleet.sizing import Sized, packed, sized
from toolkit.spec.gpus import GPUS
from toolkit.spec.models import Deployment

_GIB = 2**30
_MORE_GPUS = 16
_SMALLER = (
    {"weights": "fp8"},
    {"kv_cache": "fp8"},
    {"weights": "fp8", "kv_cache": "fp8"},
    {"weights": "int4_awq"},
)
"""Formats to try, from the one that costs the least accuracy on."""


def no_room(misfit: Misfit, models: Sequence[Sized], machine: Machine) -> UnsupportedError:
    """The error for a model that no GPU has room for."""
    lacking = _the(misfit, models)
    ways = list(_ways_out(misfit, lacking, models, machine))
    hint = f"what would fit: {'; or '.join(ways)}" if ways else "leave a model out"
    return UnsupportedError(
        f"{_replica(misfit)} has no place: {_reason(misfit, machine)}",
        where=lacking.member.place,
        hint=hint,
        details=(*_table(misfit), f"{lacking.deployment.name} alone:", *lacking.memory.lines()),
    )


def no_room_on_host(misfit: Misfit, models: Sequence[Sized]) -> UnsupportedError:
    """The error for a model that the memory of this machine has no room for."""
    lacking = _the(misfit, models)
    return UnsupportedError(
        f"{lacking.deployment.name} has no place: {_gib(misfit.needed)} are needed beside the "
        f"others on this machine, {_gib(misfit.missing or 0)} more than are free",
        where=lacking.member.place,
        hint="lower engine.limits.max_seq_len or engine.kv_cache.size, quantize "
        "(quantization.weights: int4_awq), or leave a model out",
        details=(
            *_table(misfit, "this machine"),
            f"{lacking.deployment.name} alone:",
            *lacking.memory.lines(),
        ),
    )


def _the(misfit: Misfit, models: Sequence[Sized]) -> Sized:
    return next(each for each in models if each.deployment.name == misfit.demand.name)


def _replica(misfit: Misfit) -> str:
    count = misfit.demand.replicas
    return misfit.demand.name + (f", replica {misfit.replica + 1} of {count}," * (count > 1))


def _reason(misfit: Misfit, machine: Machine) -> str:
    demand = misfit.demand
    if demand.gpus > 1:
        return (
            f"it takes {demand.gpus} whole GPUs, and {misfit.whole} of {machine} "
            f"{'is' if misfit.whole == 1 else 'are'} free: {demand.gpus - misfit.whole} missing"
        )
    if misfit.missing is None:
        return f"each of {machine} has a replica of it or is taken whole: 1 GPU is missing"
    return (
        f"it needs {_gib(misfit.needed)}, and {_gib(misfit.missing)} are missing on the GPU with "
        f"the most room of {machine}"
    )


def _table(misfit: Misfit, place: str = "GPU") -> Iterator[str]:
    for use in misfit.gpus:
        names = ", ".join(_share(use)) or "nothing"
        number = f" {use.gpu}" if place == "GPU" else ""
        yield f"{place}{number}: {names}; {_gib(use.left)} of {_gib(use.memory)} left"


def _share(use: GpuUse) -> Iterator[str]:
    for share in use.shares:
        yield f"{share.name} {_gib(share.fixed)} + {_gib(share.pool)} KV cache"


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


def _ways_out(
    misfit: Misfit, lacking: Sized, models: Sequence[Sized], machine: Machine
) -> Iterator[str]:
    """One way of each kind: another format, fewer replicas, more GPUs, larger ones."""
    name = lacking.deployment.name
    if smaller := _format(lacking, models, machine):
        yield smaller
    for count in range(lacking.deployment.serving.replicas - 1, 0, -1):
        if _fits(_other(models, lacking, _replicas(lacking.deployment, count), machine), machine):
            yield f"replicas: {count} of {name}"
            break
    for count in range(len(machine.numbers) + 1, len(machine.numbers) + 1 + _MORE_GPUS):
        if _fits(models, replace(machine, numbers=tuple(range(count)))):
            yield f"{count} GPUs"
            break
    if larger := _larger(models, machine):
        yield f"{len(machine.numbers)} x {larger}"


def _format(lacking: Sized, models: Sequence[Sized], machine: Machine) -> str | None:
    """A smaller format that makes room: in the model itself, in another one, or in several."""
    others = [each for each in models if each.on_gpu and each is not lacking]
    for whose in ([lacking], *([each] for each in others), [lacking, *others]):
        for formats in _SMALLER:
            names = _room_by(formats, whose, models, machine)
            if names:
                written = (f"quantization.{name}: {form}" for name, form in formats.items())
                return f"{', '.join(written)} for {', '.join(names)}"
    return None


def _room_by(
    formats: Mapping[str, str], whose: Sequence[Sized], models: Sequence[Sized], machine: Machine
) -> list[str]:
    """As many of ``whose``, in order, as have to get smaller; none if even all do not help."""
    tried, names = list(models), []
    for each in whose:
        changed = _other(tried, each, _quantized(each.deployment, formats), machine)
        if changed and _gains(each, changed):
            tried = changed
            names.append(each.deployment.name)
            if _fits(tried, machine):
                return names
    return []


def _gains(before: Sized, tried: Sequence[Sized]) -> bool:
    """Whether the other format takes less: a model may have a smaller one already."""
    after = next(each for each in tried if each.member is before.member).demand
    return (after.fixed, after.least) < (before.demand.fixed, before.demand.least)


def _larger(models: Sequence[Sized], machine: Machine) -> str | None:
    """The smallest GPU that has more memory and takes all of them."""
    memory = machine.gpu.memory if machine.gpu else 0
    for gpu in sorted(GPUS, key=lambda each: each.memory):
        if gpu.memory <= memory:
            continue
        other = replace(machine, gpu=gpu)
        tried = [_again(each, each.deployment, other) for each in models]
        if all(tried) and _fits([each for each in tried if each], other):
            return gpu.name
    return None


def _other(
    models: Sequence[Sized], lacking: Sized, deployment: Deployment, machine: Machine
) -> list[Sized]:
    """The models with another deployment for one of them; none where that cannot work."""
    changed = _again(lacking, deployment, machine)
    if changed is None:
        return []
    return [changed if each is lacking else each for each in models]


def _again(model: Sized, deployment: Deployment, machine: Machine) -> Sized | None:
    try:
        return sized(model.member, deployment, model.shapes, machine)
    except (SpecError, UnsupportedError):
        return None


def _fits(models: Sequence[Sized], machine: Machine) -> bool:
    # What first fit finds at once is advice enough; dozens of searches would take a minute.
    return bool(models) and isinstance(packed(models, machine, search=False), Packing)


def _replicas(deployment: Deployment, count: int) -> Deployment:
    serving = deployment.serving.model_copy(update={"replicas": count})
    return deployment.model_copy(update={"serving": serving})


def _quantized(deployment: Deployment, formats: Mapping[str, str]) -> Deployment:
    quantization = deployment.quantization.model_copy(update=formats)
    return deployment.model_copy(update={"quantization": quantization})
