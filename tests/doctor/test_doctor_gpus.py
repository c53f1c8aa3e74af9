"""Reading GPUs and their links, as nvidia-smi and NVML tell them."""

from __future__ import annotations

import sys
import types

import pytest
from machines import A100, H100, NVLINKED, PEERS, RTX, SOCKETS, bare, broken_driver, with_gpus

from toolkit.doctor import gpus, topology
from toolkit.doctor.machine import Answer, Machine


def test_several_gpus() -> None:
    reading = gpus.read(with_gpus(H100, H100, driver="580.95.05", cuda="13.0", used=1))
    first, second = reading.gpus
    assert (first.index, second.index) == (0, 1)
    assert first.name == "NVIDIA H100 80GB HBM3"
    assert first.memory == 81559 * 2**20
    assert first.used == 2**20
    assert first.compute_capability == (9, 0)
    assert (first.mig, first.ecc, first.ecc_errors, first.persistence) == (False, True, 0, True)
    assert reading.driver == "580.95.05"
    assert reading.driver_branch == 580
    assert reading.cuda == "13.0"


def test_what_a_card_lacks_is_not_known() -> None:
    (card,) = gpus.read_gpus(with_gpus(RTX))
    assert (card.mig, card.ecc, card.ecc_errors) == (None, None, None)
    assert card.persistence is False


def test_split_gpu() -> None:
    (card,) = gpus.read_gpus(with_gpus(A100, mig="Enabled"))
    assert card.mig is True


def test_no_gpu_and_no_driver() -> None:
    reading = gpus.read(bare())
    assert reading == gpus.Reading()


def test_hardware_without_a_working_driver_is_told_apart() -> None:
    reading = gpus.read(broken_driver())
    assert reading.present
    assert reading.gpus == ()
    assert "couldn't communicate with the NVIDIA driver" in str(reading.problem)


def test_hardware_without_any_driver() -> None:
    machine = broken_driver()
    machine.programs.clear()
    reading = gpus.read(machine)
    assert reading.present
    assert "not installed" in str(reading.problem)


def test_driver_that_finds_nothing() -> None:
    machine = bare(programs={"nvidia-smi"})
    machine.answers["nvidia-smi"] = Answer(6, "No devices were found\n")
    assert gpus.read(machine).problem == "the driver finds no GPU"


def test_driver_too_old_for_a_field() -> None:
    machine = with_gpus(H100)
    machine.answers["nvidia-smi --query-gpu="] = Answer(
        2, 'Field "compute_cap" is not a valid field to query.\n'
    )
    reading = gpus.read(machine)
    assert reading.present
    assert "compute_cap" in str(reading.problem)


def test_cuda_of_an_older_nvidia_smi_stands_in_its_table() -> None:
    machine = with_gpus(H100)
    machine.answers["nvidia-smi --version"] = Answer(1, "Invalid combination of input arguments.")
    machine.answers["nvidia-smi"] = Answer(0, "| NVIDIA-SMI 535.1   CUDA Version: 12.2     |")
    assert gpus.read(machine).cuda == "12.2"


class Nvml(types.ModuleType):
    """NVML's binding with one card that has no ECC."""

    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.shut = False
        self.nvmlInit = lambda: None
        self.nvmlShutdown = lambda: setattr(self, "shut", True)
        self.nvmlDeviceGetCount = lambda: 1
        self.nvmlDeviceGetHandleByIndex = lambda index: index
        self.nvmlSystemGetDriverVersion = lambda: "590.44.01"
        self.nvmlSystemGetCudaDriverVersion_v2 = lambda: 13010
        self.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(total=10, used=3)
        self.nvmlDeviceGetUUID = lambda handle: "GPU-1"
        self.nvmlDeviceGetName = lambda handle: b"NVIDIA L4"
        self.nvmlDeviceGetCudaComputeCapability = lambda handle: [8, 9]
        self.nvmlDeviceGetMigMode = lambda handle: [1, 0]
        self.nvmlDeviceGetPersistenceMode = lambda handle: 0
        self.nvmlDeviceGetEccMode = self.lacking
        self.nvmlDeviceGetTotalEccErrors = self.lacking

    def lacking(self, *_: object) -> None:
        raise self.NVMLError


def test_nvml_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    reading = gpus.read(Machine())
    assert reading.gpus == (
        gpus.FoundGpu(0, "GPU-1", "NVIDIA L4", 10, 3, (8, 9), True, None, None, False),
    )
    assert (reading.driver, reading.cuda) == ("590.44.01", "13.1")
    assert nvml.shut


def test_nvml_without_a_library_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    nvml.nvmlInit = nvml.lacking
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert gpus.read(Machine()).gpus == ()


def test_matrix_of_links() -> None:
    found = topology.parse_matrix(NVLINKED)
    assert len(found) == 6
    assert found[0, 3] == "NV18"
    assert topology.slowest(found, [0, 1, 2]) == ("NV", (1, 2))


def test_slowest_link_is_the_one_that_counts() -> None:
    found = topology.parse_matrix(SOCKETS)
    assert topology.slowest(found, [0, 1]) == ("PHB", (0, 1))
    assert topology.slowest(found, [0, 1, 2]) == ("SYS", (1, 2))


def test_matrix_of_peers_with_a_first_column_of_blanks() -> None:
    found = topology.parse_matrix(PEERS.format(cell="CNS"))
    assert found[0, 2] == "CNS"
    assert found[0, 1] == "OK"


@pytest.mark.parametrize(
    "text", ["", "nonsense\n", "GPU0", "\tGPU0\n", "Failed to initialize NVML"]
)
def test_no_matrix(text: str) -> None:
    assert topology.parse_matrix(text) == {}
    assert topology.slowest({}, [0, 1]) is None
