"""Checks of what every server needs: disk, memory, limits, ports, clock."""

from __future__ import annotations

import platform
import resource
import time
from pathlib import Path

from toolkit.doctor.check import Check, Context, Result, fail, ok, skip, warn
from toolkit.doctor.need import Need
from toolkit.errors import ServerError
from toolkit.serving import ports
from toolkit.serving.preflight import MIN_SHARED_MEMORY
from toolkit.serving.state import RunDirectory
from toolkit.spec.models import Ports
from toolkit.spec.units import format_size
from toolkit.workspace import users_by_key

_GIB = 2**30
_FILES = 4096
_LOCKED = 64 * 2**20


def _bare(need: Need) -> bool:
    return not need.contained


def _bare_gpu(need: Need) -> bool:
    return need.on_gpu and not need.contained


def _kernel(context: Context) -> Result:
    if platform.system() != "Linux":
        return fail(f"this is {platform.system()}", "use Linux, or a Linux container or machine")
    return ok(f"Linux {platform.release()} on {platform.machine()}")


def _clock(context: Context) -> Result:
    if time.time() < 1.7e9:
        return fail("the clock is years behind", "timedatectl set-ntp true")
    answer = context.machine.run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if answer is None or not answer.ok:
        return skip("timedatectl does not tell (in a container the host's clock counts)")
    if answer.out.strip() == "yes":
        return ok("synchronized")
    return warn(
        "the clock is not synchronized: certificates and logs go wrong when it drifts",
        "timedatectl set-ntp true",
    )


def _disk(context: Context) -> Result:
    if not context.machine.writable(context.workspace):
        return fail(
            f"{context.workspace} cannot be written",
            "--workspace (TOOLKIT_WORKSPACE) on a disk that can",
        )
    free = context.machine.free_bytes(context.workspace)
    told = f"{format_size(free)} free for {context.workspace}"
    need = context.need
    if need is None:
        return ok(told)
    if any(need.deployment.name in names for names in users_by_key(context.workspace).values()):
        return ok(f"{told}; built before")
    if need.disk_bytes is None:
        return skip(f"{told}; the model's size is known once its checkpoint is there")
    wanted = f"weights and engine take about {format_size(need.disk_bytes)}"
    if free < need.disk_bytes:
        return fail(
            f"{told}; {wanted}",
            "toolkit artifacts prune, or --workspace (TOOLKIT_WORKSPACE) on a larger disk",
        )
    return ok(f"{told}; {wanted}")


def _ram(context: Context) -> Result:
    have = memory_limit(context)
    if have is None:
        return skip("/proc/meminfo does not tell")
    told = format_size(have)
    need = context.need
    if need is None:
        return ok(told)
    offload = need.deployment.engine.kv_cache.host_offload
    wanted = offload + (need.weight_bytes or 0 if need.quantizes or not need.on_gpu else 0)
    if need.weight_bytes is None and not offload:
        return skip(f"{told}; the model's size is known once its checkpoint is there")
    if have < wanted:
        return fail(
            f"{told}; weights in memory and offloaded KV cache take about {format_size(wanted)}",
            "use a machine with more memory, or lower engine.kv_cache.host_offload",
        )
    return ok(f"{told}; about {format_size(wanted)} are needed")


def memory_limit(context: Context) -> int | None:
    """Bytes of memory: the machine's, or what its control group allows."""
    text = context.machine.text("/proc/meminfo") or ""
    total = next((line for line in text.splitlines() if line.startswith("MemTotal:")), None)
    whole = int(total.split()[1]) * 1024 if total else None
    limit = _group_limit(context)
    known = [size for size in (whole, limit) if size is not None]
    return min(known, default=None)


def _group_limit(context: Context) -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = (context.machine.text(path) or "").strip()
        if text.isdigit() and int(text) < 2**60:  # "no limit" is a number near 2**63 in version 1
            return int(text)
    return None


def _groups(context: Context) -> Result:
    limit = _group_limit(context)
    quota = (context.machine.text("/sys/fs/cgroup/cpu.max") or "").split()
    cores = int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0].isdigit() else None
    told = [f"memory {format_size(limit)}"] if limit else []
    told += [f"{cores:g} cores"] if cores else []
    if cores and cores < 2:
        return warn(
            f"this process gets {cores:g} cores: tokenizing and streaming will lag",
            "raise the control group's limit (docker: --cpus, Kubernetes: limits.cpu)",
        )
    return ok(f"limited to {', '.join(told)}" if told else "no limit beside the machine's own")


def _shared_memory(context: Context) -> Result:
    if not context.machine.exists("/dev/shm"):
        return fail("there is no /dev/shm", "mount -t tmpfs tmpfs /dev/shm")
    size = context.machine.total_bytes(Path("/dev/shm"))
    free = context.machine.free_bytes(Path("/dev/shm"))
    told = f"{format_size(size)}, {format_size(free)} free"
    mend = "docker: --shm-size=2g; else: mount -o remount,size=2g /dev/shm"
    if free < MIN_SHARED_MEMORY:
        return fail(f"{told}; tensors of python models need 64 MiB", mend)
    several = context.need is not None and len(context.need.gpus) > 1
    if several and size < _GIB:
        return warn(f"{told}; ranks on several GPUs exchange data through it", mend)
    return ok(told)


def _memlock(context: Context) -> Result:
    limit = context.machine.limit(resource.RLIMIT_MEMLOCK)
    if limit is None:
        return ok("unlimited")
    if limit < _LOCKED:
        return warn(
            f"{format_size(limit)}: pinned host memory and InfiniBand need more",
            "ulimit -l unlimited; for good: 'memlock unlimited' in /etc/security/limits.conf",
        )
    return ok(format_size(limit))


def _files(context: Context) -> Result:
    limit = context.machine.limit(resource.RLIMIT_NOFILE)
    if limit is not None and limit < _FILES:
        return warn(
            f"{limit} open files: every connection and stream takes one",
            f"ulimit -n {_FILES}; for good: 'nofile {_FILES}' in /etc/security/limits.conf",
        )
    return ok("unlimited" if limit is None else str(limit))


def _ports(context: Context) -> Result:
    need = context.need
    wanted = need.deployment.serving.ports if need else Ports()
    host = need.deployment.serving.host if need else "127.0.0.1"
    told = ", ".join(str(port) for port in (wanted.http, wanted.grpc, wanted.metrics) if port)
    if need is not None:
        state = RunDirectory(context.workspace, need.deployment.name).read()
        if state is not None and state.runs:
            return ok(f"{need.deployment.name} itself listens at {state.endpoints.http_url}")
    try:
        ports.choose(host, wanted)
    except ServerError as error:
        result = fail(error.message, error.hint or "")
        return result if need else warn(result.detail, result.mend)
    return ok(f"{told or 'any free ones'} on {host}")


SYSTEM_CHECKS = (
    Check("kernel", "this is Linux", _kernel),
    Check("clock", "the clock is right", _clock),
    Check("disk", "weights and engine fit", _disk),
    Check("memory", "weights and offloaded cache fit", _ram),
    Check("control group", "no limit is too tight", _groups),
    Check("shared memory", "tensors pass between processes", _shared_memory, _bare),
    Check("locked memory", "host memory can be pinned", _memlock, _bare_gpu),
    Check("open files", "connections are not refused", _files, _bare),
    Check("ports", "the server's ports are free", _ports),
)
