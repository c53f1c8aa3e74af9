"""Machines that the doctor is shown: what nvidia-smi, docker and /proc say on each.

The layouts are those of nvidia-smi 535 to 590: CSV without header or units, ``[N/A]`` for what a
card lacks, tab-separated matrices whose header may be underlined.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.doctor.machine import Answer, Machine

H100 = "NVIDIA H100 80GB HBM3, 81559, {used}, 9.0, {mig}, Enabled, 0, Enabled, {driver}"
A100 = "NVIDIA A100-SXM4-80GB, 81920, 0, 8.0, {mig}, Enabled, 0, Enabled, {driver}"
L4 = "NVIDIA L4, 23034, 0, 8.9, [N/A], Enabled, 0, Disabled, {driver}"
RTX = "NVIDIA GeForce RTX 4090, 24564, 18, 8.9, [N/A], [N/A], [N/A], Disabled, {driver}"

VERSION = """\
NVIDIA-SMI version  : {driver}
NVML version        : 580.95
DRIVER version      : {driver}
CUDA Version        : {cuda}
"""

NVLINKED = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV18\tNV18\tNV18\tPXB\t0-55\t0\t\tN/A
GPU1\tNV18\t X \tNV18\tNV18\tNODE\t0-55\t0\t\tN/A
GPU2\tNV18\tNV18\t X \tNV18\tSYS\t56-111\t1\t\tN/A
GPU3\tNV18\tNV18\tNV18\t X \tSYS\t56-111\t1\t\tN/A
NIC0\tPXB\tNODE\tSYS\tSYS\t X \t\t\t\t

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes
"""
SOCKETS = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity
GPU0\t X \tPHB\tSYS\tSYS\t0-15\t0
GPU1\tPHB\t X \tSYS\tSYS\t0-15\t0
GPU2\tSYS\tSYS\t X \tPHB\t16-31\t1
GPU3\tSYS\tSYS\tPHB\t X \t16-31\t1
"""
PEERS = """\
 \tGPU0\tGPU1\tGPU2\tGPU3
 GPU0\tX\tOK\t{cell}\tOK
 GPU1\tOK\tX\tOK\tOK
 GPU2\t{cell}\tOK\tX\tOK
 GPU3\tOK\tOK\tOK\tX

Legend:
  X    = Self
"""


@dataclass
class Told(Machine):
    """A machine that says what a test lets it say."""

    answers: dict[str, Answer] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    programs: set[str] = field(default_factory=set)
    free: int = 4 * 2**40
    shm: int = 64 * 2**30
    limits: dict[int, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def environ(self) -> Mapping[str, str]:
        return self.variables

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self.programs else None

    def run(self, *words: str) -> Answer | None:
        line = " ".join(words)
        self.asked.append(line)
        if words[0] not in self.programs:
            return None
        begun = [known for known in self.answers if line.startswith(known)]
        return self.answers[max(begun, key=len)] if begun else Answer(1, "", "unknown option")

    def text(self, path: str) -> str | None:
        return self.files.get(path)

    def exists(self, path: str) -> bool:
        return any(known == path or known.startswith(f"{path}/") for known in self.files)

    def names(self, directory: str) -> tuple[str, ...]:
        below = (
            known[len(directory) + 1 :] for known in self.files if known.startswith(f"{directory}/")
        )
        return tuple(sorted({name.split("/")[0] for name in below}))

    def free_bytes(self, path: Path) -> int:
        return self.shm if path == Path("/dev/shm") else self.free

    def total_bytes(self, path: Path) -> int:
        return self.free_bytes(path)

    def limit(self, kind: int) -> int | None:
        return self.limits.get(kind)

    def cores(self) -> int:
        return 64


def bare(**changes: object) -> Told:
    """A machine without any NVIDIA device or engine."""
    machine = Told(
        files={
            "/proc/meminfo": "MemTotal:       2113460000 kB\nMemFree: 1 kB\n",
            "/dev/shm/x": "",
            "/sys/fs/cgroup/memory.max": "max\n",
            "/sys/fs/cgroup/cpu.max": "max 100000\n",
        }
    )
    for name, value in changes.items():
        setattr(machine, name, value)
    return machine


def with_gpus(
    *rows: str,
    driver: str = "580.95.05",
    cuda: str = "13.0",
    links: str = NVLINKED,
    cell: str = "OK",
    used: int = 0,
    mig: str = "Disabled",
) -> Told:
    """A machine with one GPU for each row, docker and the NVIDIA Container Toolkit."""
    machine = bare()
    lines = [
        f"{number}, GPU-{number:08d}-aaaa, " + row.format(driver=driver, used=used, mig=mig)
        for number, row in enumerate(rows)
    ]
    machine.programs |= {"nvidia-smi", "docker"}
    machine.answers |= {
        "nvidia-smi --query-gpu=": Answer(0, "\n".join(lines) + "\n"),
        "nvidia-smi --version": Answer(0, VERSION.format(driver=driver, cuda=cuda)),
        "nvidia-smi topo -m": Answer(0, links),
        "nvidia-smi topo -p2p r": Answer(0, PEERS.format(cell=cell)),
        "docker info": docker_info(),
        "docker image inspect": Answer(0, "sha256:" + "a" * 64),
    }
    return machine


def docker_info(**changes: object) -> Answer:
    told = {
        "ServerVersion": "28.2.2",
        "Runtimes": {"runc": {}, "nvidia": {}},
        "DockerRootDir": "/var/lib/docker",
        **changes,
    }
    return Answer(0, json.dumps(told))


def broken_driver() -> Told:
    """The card is there, its kernel module is not loaded."""
    machine = bare()
    machine.files |= {
        "/sys/bus/pci/devices/0000:17:00.0/vendor": "0x10de\n",
        "/sys/bus/pci/devices/0000:17:00.0/class": "0x030200\n",
    }
    machine.programs.add("nvidia-smi")
    machine.answers["nvidia-smi"] = Answer(
        9,
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure "
        "that the latest NVIDIA driver is installed and running.\n",
    )
    return machine
