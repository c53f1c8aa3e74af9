"""Checks of GPUs, their driver and the links between them.

Sources: driver branches and forward compatibility are the release tables'; the meaning of links
is the legend of ``nvidia-smi topo -m``, that of peer-to-peer codes the one of ``topo -p2p r``.
"""

from __future__ import annotations

from collections.abc import Iterable

from toolkit import releases
from toolkit.doctor import topology
from toolkit.doctor.check import Check, Context, Result, fail, ok, skip, warn
from toolkit.doctor.gpus import FoundGpu
from toolkit.doctor.need import Need
from toolkit.spec.units import format_size

CPU_ONLY = "only the CPU runtime works here (engine.runtime: openvino)"
_BUSY = 0.1
_PEER_CODES = {
    "CNS": "the chipset does not support it",
    "GNS": "the GPUs do not support it",
    "TNS": "the topology does not support it",
    "NS": "not supported",
    "U": "unknown",
    "DR": "disabled by the driver's registry keys",
}
_SWITCHED_OFF = {
    "NCCL_P2P_DISABLE": "GPUs do not read each other's memory directly",
    "NCCL_SHM_DISABLE": "ranks exchange data over sockets instead of shared memory",
    "NCCL_NVLS_ENABLE": "collective operations are not done in the NVLink switch",
}


def _on_gpu(need: Need) -> bool:
    return need.on_gpu


def _several(need: Need) -> bool:
    return need.on_gpu and len(need.gpus) > 1


def _gpus(context: Context) -> Result:
    reading = context.reading
    if reading.gpus:
        names = _counted(f"{gpu.name}, {format_size(gpu.memory)}" for gpu in reading.gpus)
        return ok(names)
    if context.need is not None:
        why = reading.problem or "this machine has no NVIDIA GPU"
        mend = (
            "install the driver (see the check of the driver), and reboot if its kernel module "
            "does not load"
            if reading.present
            else f"deploy on a machine with a GPU; {CPU_ONLY}"
        )
        return fail(why, mend)
    if reading.present:
        return fail(str(reading.problem), "install the NVIDIA driver, then: nvidia-smi")
    return warn(f"no NVIDIA GPU: {CPU_ONLY}")


def _counted(names: Iterable[str]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return "; ".join(f"{count} x {name}" for name, count in counts.items())


def _numbers(context: Context) -> Result:
    need = context.need
    if need is None:
        return skip("no deployment file")
    if not context.reading.gpus:
        return skip("no GPU is known")
    there = {gpu.index for gpu in context.reading.gpus}
    missing = [number for number in need.gpus if number not in there]
    if missing:
        return fail(
            f"serving.gpus names {_listed(missing)}, this machine has {_listed(sorted(there))}",
            "list GPUs that are there (nvidia-smi -L), or split the model over fewer",
        )
    hidden = context.machine.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return warn(
            f"CUDA_VISIBLE_DEVICES={hidden!r} is set here; the server gets serving.gpus instead",
            "unset it, so that numbers mean the same everywhere",
        )
    return ok(f"GPU {_listed(need.gpus)}")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _driver(context: Context) -> Result:
    reading = context.reading
    branch = reading.driver_branch
    if branch is None:
        return skip("no driver is known")
    release = _release(context)
    image = release.container
    told = f"driver {reading.driver} (CUDA {reading.cuda or 'unknown'})"
    if image is None:
        return skip(f"{told}; no image of {release.title} is known")
    wanted = f"{release.title} (CUDA {image.cuda}) needs driver {image.driver_minimum} or newer"
    if branch >= image.driver_minimum:
        return ok(f"{told}; {wanted}")
    older = _release_for(branch)
    mend = f"install driver {image.driver_minimum} or newer ({image.driver} belongs to that CUDA)"
    if older:
        mend += f"; or set engine.release: {older}"
    forward = branch in image.forward_compatible
    if forward and not any(_desktop(gpu) for gpu in context.used):
        return warn(f"{told}: older, runs by forward compatibility on data-centre GPUs", mend)
    result = fail(f"{told}; {wanted}", mend)
    return result if context.need else warn(result.detail, result.mend)


def _release(context: Context) -> releases.Release:
    if context.need is not None and context.need.release is not None:
        return context.need.release
    return releases.default_release("pytorch")


def _release_for(branch: int) -> str | None:
    """The newest stable release whose image runs on a driver of this branch."""
    fitting = [
        release.version
        for release in releases.known_releases()
        if release.stable and release.container and release.container.driver_minimum <= branch
    ]
    return fitting[-1] if fitting else None


def _desktop(gpu: FoundGpu) -> bool:
    """Forward compatibility is for data-centre GPUs (NVIDIA, "CUDA Compatibility")."""
    return any(family in gpu.name.lower() for family in ("geforce", "rtx", "titan", "quadro"))


def _capability(context: Context) -> Result:
    if not context.used:
        return skip("no GPU is known")
    release, need = _release(context), context.need
    if need is None:
        known = {row.capability for row in release.formats}
        odd = [gpu for gpu in context.used if gpu.compute_capability not in known]
        told = _counted(f"{gpu.name}: {gpu.capability}" for gpu in context.used)
        if odd:
            return warn(f"{told}; {release.title} does not list {odd[0].capability}", CPU_ONLY)
        return ok(told)
    spec = need.deployment.quantization
    if spec.weights == "auto" or spec.kv_cache == "auto":
        return skip("the number format is chosen by the build (auto)")
    weights, kv = spec.weights, spec.kv_cache
    cautions: list[str] = []
    for gpu in context.used:
        if gpu.compute_capability is None:
            return skip(f"GPU {gpu.index} does not tell its compute capability")
        verdict = release.supports(
            weights=weights,
            kv=kv,
            compute_capability=gpu.compute_capability,
            runtime="tensorrt" if need.runtime == "tensorrt" else "pytorch",
        )
        if not verdict.ok:
            works = "; ".join(str(each) for each in verdict.alternatives)
            return fail(f"GPU {gpu.index}: {verdict.reason}", f"works here: {works or CPU_ONLY}")
        cautions += [verdict.caution] if verdict.caution else []
    kinds = {gpu.capability for gpu in context.used}
    if len(kinds) > 1:
        return fail(
            f"the GPUs differ in compute capability: {', '.join(sorted(kinds))}",
            "an engine runs on one kind of GPU: list equal ones under serving.gpus",
        )
    told = f"compute capability {kinds.pop()}: {weights} weights, {kv} KV cache"
    return warn(told + "; " + cautions[0]) if cautions else ok(told)


def _memory(context: Context) -> Result:
    if not context.used:
        return skip("no GPU is known")
    busy = [gpu for gpu in context.used if gpu.used > _BUSY * gpu.memory]
    if busy:
        first = busy[0]
        return warn(
            f"GPU {first.index}: other processes hold {format_size(first.used)} of "
            f"{format_size(first.memory)}",
            "nvidia-smi tells which; end them, or lower engine.kv_cache.free_memory_fraction",
        )
    need = context.need
    whole = sum(gpu.memory for gpu in context.used)
    if need is None or need.stored_bytes is None:
        return ok(f"{format_size(whole)} free for the most part")
    weights = need.stored_bytes * need.deployment.serving.replicas
    if weights > whole:
        return fail(
            f"the weights alone take about {format_size(weights)}, the GPUs have "
            f"{format_size(whole)}",
            "use more GPUs (engine.parallelism.tensor, serving.gpus) or a smaller "
            "quantization.weights; toolkit plan does the sum",
        )
    return ok(f"{format_size(whole)}, of which the weights take about {format_size(weights)}")


def _mig(context: Context) -> Result:
    if not context.used:
        return skip("no GPU is known")
    split = [gpu for gpu in context.used if gpu.mig]
    if not split:
        return ok("no GPU is split")
    first = split[0].index
    mend = (
        f"nvidia-smi -i {first} -mig 0 (as root, with no process on it); or run inside a "
        "container that was given the instance, with serving.launcher: binary"
    )
    told = (
        f"GPU {_listed(gpu.index for gpu in split)} is split (MIG); serving.gpus means whole ones"
    )
    return fail(told, mend) if context.need else warn(told, mend)


def _ecc(context: Context) -> Result:
    if not context.used:
        return skip("no GPU is known")
    bad = [gpu for gpu in context.used if gpu.ecc_errors]
    if bad:
        return fail(
            f"GPU {bad[0].index} has {bad[0].ecc_errors} uncorrected memory errors",
            f"drain it, then: nvidia-smi -i {bad[0].index} --gpu-reset; replace it if they return",
        )
    off = [gpu for gpu in context.used if gpu.ecc is False]
    if off:
        return warn(
            f"error correction is off on GPU {_listed(gpu.index for gpu in off)}",
            "nvidia-smi -e 1 and a reboot; off, a flipped bit changes answers silently",
        )
    if all(gpu.ecc is None for gpu in context.used):
        return skip("these cards have no error correction")
    return ok("on, no uncorrected errors")


def _persistence(context: Context) -> Result:
    off = [gpu for gpu in context.used if gpu.persistence is False]
    if not context.used:
        return skip("no GPU is known")
    if off:
        return warn(
            f"off on GPU {_listed(gpu.index for gpu in off)}: the first start after idling is slow",
            "systemctl enable --now nvidia-persistenced, or nvidia-smi -pm 1",
        )
    return ok("on")


def _links(context: Context) -> Result:
    numbers = [gpu.index for gpu in context.used]
    if len(numbers) < 2:
        return skip("one GPU or none")
    found = topology.slowest(context.links, numbers)
    if found is None:
        return skip("nvidia-smi topo -m tells nothing")
    kind, (first, second) = found
    told = f"GPU {first} and {second} are linked by {topology.LINKS[kind]} ({kind})"
    if kind == "NV":
        return ok("NVLink between all of them")
    mend = "choose GPUs with NVLink under serving.gpus (nvidia-smi topo -m)"
    need = context.need
    if need is not None and need.deployment.engine.parallelism.tensor > 1:
        mend += ", or split by engine.parallelism.pipeline, which exchanges less"
        return warn(f"{told}: tensor parallelism waits for it in every layer", mend)
    return ok(told) if need is None else warn(told, mend)


def _peers(context: Context) -> Result:
    numbers = [gpu.index for gpu in context.used]
    if len(numbers) < 2:
        return skip("one GPU or none")
    answer = context.machine.run("nvidia-smi", "topo", "-p2p", "r")
    matrix = topology.parse_matrix(answer.out) if answer and answer.ok else {}
    inside = {pair: cell for pair, cell in matrix.items() if set(pair) <= set(numbers)}
    if not inside:
        return skip("nvidia-smi topo -p2p r tells nothing")
    for (first, second), cell in sorted(inside.items()):
        if cell != "OK":
            return warn(
                f"GPU {first} cannot read GPU {second}'s memory: {_PEER_CODES.get(cell, cell)}",
                "collective operations go through shared memory; in a virtual machine pass the "
                "GPUs' switch through, on bare metal turn PCIe access control (ACS) off",
            )
    return ok("every pair reads each other's memory")


def _nccl(context: Context) -> Result:
    environ = context.machine.environ
    off = [
        f"{name}={value}: {meaning}"
        for name, meaning in _SWITCHED_OFF.items()
        if (value := environ.get(name)) is not None and (value == "0") == ("ENABLE" in name)
    ]
    if off:
        return warn("; ".join(off), "unset what was set for another machine")
    fabric = context.machine.names("/sys/class/infiniband")
    told = f"InfiniBand or RoCE: {', '.join(fabric)}" if fabric else "no InfiniBand"
    return ok(f"nothing is switched off; {told} (one node does without)")


GPU_CHECKS = (
    Check("gpu", "an NVIDIA GPU answers", _gpus, _on_gpu),
    Check("gpu numbers", "the GPUs of serving.gpus are there", _numbers, _on_gpu),
    Check("driver", "the driver runs the release's CUDA", _driver, _on_gpu),
    Check("compute capability", "the GPUs compute in these formats", _capability, _on_gpu),
    Check("gpu memory", "nobody else holds it and the weights fit", _memory, _on_gpu),
    Check("mig", "GPUs are whole", _mig, _on_gpu),
    Check("ecc", "memory errors are corrected", _ecc, _on_gpu),
    Check("persistence", "the driver stays loaded", _persistence, _on_gpu),
    Check("gpu links", "GPUs of one engine are linked fast", _links, _several),
    Check("peer access", "GPUs read each other's memory", _peers, _several),
    Check("nccl", "no setting slows collective operations", _nccl, _several),
)
