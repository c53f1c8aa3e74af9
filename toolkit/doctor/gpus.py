"""The NVIDIA GPUs of this machine, from NVML's Python binding or from nvidia-smi.

Fields of ``nvidia-smi --query-gpu`` are those of its own ``--help-query-gpu``; ``compute_cap`` is
missing in drivers before R510, ``[N/A]`` and ``[Not Supported]`` stand for what a card lacks.
"""

from __future__ import annotations

import csv
import importlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolkit.doctor.machine import Machine

FIELDS = (
    "index",
    "uuid",
    "name",
    "memory.total",
    "memory.used",
    "compute_cap",
    "mig.mode.current",
    "ecc.mode.current",
    "ecc.errors.uncorrected.volatile.total",
    "persistence_mode",
)
_MIB = 2**20
_CUDA = re.compile(r"CUDA Version\s*:\s*(\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """One GPU; None where the card or the driver does not tell.

    Attributes:
        index: The number that ``serving.gpus`` uses.
        memory: Bytes in all, as the driver reports them.
        used: Bytes that processes hold now.
        ecc_errors: Uncorrected errors since the driver was loaded.
    """

    index: int
    uuid: str
    name: str
    memory: int
    used: int
    compute_capability: tuple[int, int] | None
    mig: bool | None = None
    ecc: bool | None = None
    ecc_errors: int | None = None
    persistence: bool | None = None

    @property
    def capability(self) -> str:
        """As NVIDIA writes it."""
        found = self.compute_capability
        return f"{found[0]}.{found[1]}" if found else "unknown"


@dataclass(frozen=True)
class Reading:
    """All that was learnt of the GPUs.

    Attributes:
        driver: The driver's version, such as ``580.95.05``.
        cuda: Newest CUDA that the driver runs by itself.
        problem: Why nothing or not everything is known.
        present: There is NVIDIA hardware, even if its driver does not answer.
    """

    gpus: tuple[FoundGpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    problem: str | None = None
    present: bool = False

    @property
    def driver_branch(self) -> int | None:
        """The driver's first number, such as 580."""
        return int(self.driver.split(".")[0]) if self.driver else None


def read_gpus(machine: Machine | None = None) -> tuple[FoundGpu, ...]:
    """The GPUs of this machine; none where there are none or no driver answers."""
    return read(machine or Machine()).gpus


def read(machine: Machine) -> Reading:
    """The GPUs, the driver, and what kept anything from being known."""
    found = _by_nvml() if type(machine) is Machine else None
    return found or _by_command(machine)


def _by_command(machine: Machine) -> Reading:
    present = _hardware(machine)
    query = (
        f"--query-gpu={','.join((*FIELDS, 'driver_version'))}",
        "--format=csv,noheader,nounits",
    )
    answer = machine.run("nvidia-smi", *query)
    if answer is None:
        problem = "the NVIDIA driver is not installed (no nvidia-smi)" if present else None
        return Reading(problem=problem, present=present)
    if "No devices were found" in answer.out:
        return Reading(problem="the driver finds no GPU", present=present)
    if not answer.ok:
        return Reading(problem=answer.problem, present=True)
    rows = [row for row in csv.reader(answer.out.splitlines(), skipinitialspace=True) if row]
    gpus = tuple(_gpu(row) for row in rows)
    driver = rows[0][len(FIELDS)].strip() if rows else None
    return Reading(gpus, driver, _cuda(machine), present=bool(gpus))


def _hardware(machine: Machine) -> bool:
    """Whether the PCI bus has an NVIDIA device (vendor 10de) that can compute (class 03)."""
    for name in machine.names("/sys/bus/pci/devices"):
        at = f"/sys/bus/pci/devices/{name}"
        vendor, kind = machine.text(f"{at}/vendor"), machine.text(f"{at}/class")
        if (vendor or "").strip() == "0x10de" and (kind or "").startswith("0x03"):
            return True
    return False


def _cuda(machine: Machine) -> str | None:
    for words in (("nvidia-smi", "--version"), ("nvidia-smi",)):
        answer = machine.run(*words)
        match = _CUDA.search(answer.out) if answer else None
        if match:
            return match[1]
    return None


def _gpu(row: list[str]) -> FoundGpu:
    value = dict(zip(FIELDS, (cell.strip() for cell in row), strict=False))
    major, _, minor = value["compute_cap"].partition(".")
    capability = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
    return FoundGpu(
        index=int(value["index"]),
        uuid=value["uuid"],
        name=value["name"],
        memory=(_number(value["memory.total"]) or 0) * _MIB,
        used=(_number(value["memory.used"]) or 0) * _MIB,
        compute_capability=capability,
        mig=_switch(value["mig.mode.current"]),
        ecc=_switch(value["ecc.mode.current"]),
        ecc_errors=_number(value["ecc.errors.uncorrected.volatile.total"]),
        persistence=_switch(value["persistence_mode"]),
    )


def _switch(text: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(text)


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _by_nvml() -> Reading | None:
    """None where the binding or the driver's library is not there."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # the binding raises its own types, which cannot be named without it
        return None
    try:
        gpus = tuple(_of_nvml(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return Reading(
            gpus,
            _text(nvml.nvmlSystemGetDriverVersion()),
            f"{cuda // 1000}.{cuda % 1000 // 10}",
            present=bool(gpus),
        )
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _of_nvml(nvml: Any, index: int) -> FoundGpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    ask = _Asking(nvml, handle)
    return FoundGpu(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory=memory.total,
        used=memory.used,
        compute_capability=ask("nvmlDeviceGetCudaComputeCapability"),
        mig=_first_bool(ask("nvmlDeviceGetMigMode")),
        ecc=_first_bool(ask("nvmlDeviceGetEccMode")),
        ecc_errors=ask(
            "nvmlDeviceGetTotalEccErrors",
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            nvml.NVML_VOLATILE_ECC,
        ),
        persistence=_first_bool(ask("nvmlDeviceGetPersistenceMode")),
    )


@dataclass(frozen=True)
class _Asking:
    """Questions that not every card answers."""

    nvml: Any
    handle: Any

    def __call__(self, function: str, *arguments: object) -> Any:
        try:
            found = getattr(self.nvml, function)(self.handle, *arguments)
        except self.nvml.NVMLError:
            return None
        return tuple(found) if isinstance(found, Iterable) else found


def _first_bool(value: Any) -> bool | None:
    """Modes come as (current, pending), persistence alone."""
    first = value[0] if isinstance(value, tuple) else value
    return None if first is None else bool(first)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
