"""What the GPUs that people deploy on can hold and compute.

Sources, read in November 2026:

- compute capability: NVIDIA's table developer.nvidia.com/cuda-gpus; the A100's from the table of
  GPUs in NVIDIA's MIG user guide (docs.nvidia.com/datacenter/tesla/mig-user-guide);
- memory: what the driver reports as the total (nvidia-smi) in published outputs of machines with
  the card, error correction on where the card has it. It lies below the figure of the name: the
  driver keeps a part, and error correction takes another on cards with GDDR memory;
- bandwidth, tensor rates and links: NVIDIA's data sheet of each card, named in its row, as quoted
  by NVIDIA's own tables in ai-dynamo/aiconfigurator (systems/*.yaml at 095f58a51c4c) where it has
  the card. Data sheets print rates with sparsity; these are the dense ones, half of them. GeForce
  cards compute at half rate when they sum in 32 bit, as serving does; that rate is given.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from toolkit.errors import SpecError
from toolkit.spec.models import KvFormat, WeightFormat

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Rates:
    """Dense matrix products, operations a second; 0 where the tensor cores lack the format."""

    bf16: float
    int8: float
    fp8: float = 0.0
    fp4: float = 0.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One model of GPU.

    Attributes:
        memory: Bytes that the driver reports.
        compute_capability: Major and minor.
        bandwidth: Bytes a second between the memory and the processor.
        rates: Of its tensor cores.
        link: Bytes a second to the other GPUs of the machine, in one direction.
        source: The data sheet of the last three.
        desktop: It may also drive a display.
    """

    name: str
    memory: int
    compute_capability: tuple[int, int]
    bandwidth: float
    rates: Rates
    link: float
    source: str
    desktop: bool = False

    @property
    def weights(self) -> WeightFormat:
        """The smallest weight format that it computes with and that rarely costs accuracy.

        Follows TensorRT-LLM's table of formats by architecture (docs/source/features/
        quantization.md): FP8 from compute capability 8.9, NVFP4 on data-centre Blackwell, INT4
        weights below. Desktop Blackwell (12.x) is in that table for NVFP4 too, but models fail
        there (TensorRT-LLM issue 17052), so it gets FP8.
        """
        if self.compute_capability[0] in (10, 11):
            return "nvfp4"
        return "fp8" if self.compute_capability >= (8, 9) else "int4_awq"

    @property
    def kv_cache(self) -> KvFormat:
        """The KV-cache format: FP8 where the GPU computes in it."""
        return "fp8" if self.compute_capability >= (8, 9) else "none"


def _rates(bf16: float, int8: float, fp8: float = 0, fp4: float = 0) -> Rates:
    return Rates(*(rate * 1e12 for rate in (bf16, int8, fp8, fp4)))


_PCIE_4, _PCIE_5 = 32e9, 64e9
_NVLINK_3, _NVLINK_4, _NVLINK_5 = 300e9, 450e9, 900e9
_ADA = "NVIDIA Ada GPU architecture, appendix A"
_GEFORCE_50 = "NVIDIA RTX Blackwell GPU architecture, appendix A"

# fmt: off
GPUS = (
    Gpu("A10", 23_028 * _MIB, (8, 6), 600e9, _rates(125, 250), _PCIE_4, "A10 data sheet"),
    Gpu("A100-40", 40_960 * _MIB, (8, 0), 1555e9, _rates(312, 624), _NVLINK_3,
        "A100 data sheet, SXM"),
    Gpu("A100-80", 81_920 * _MIB, (8, 0), 2039e9, _rates(312, 624), _NVLINK_3,
        "A100 data sheet, SXM"),
    Gpu("L4", 23_034 * _MIB, (8, 9), 300e9, _rates(121, 242, 242), _PCIE_4, "L4 data sheet"),
    Gpu("L40S", 46_068 * _MIB, (8, 9), 864e9, _rates(362.05, 733, 733), _PCIE_4,
        "L40S data sheet"),
    Gpu("H100", 81_559 * _MIB, (9, 0), 3350e9, _rates(989, 1979, 1979), _NVLINK_4,
        "H100 data sheet, SXM"),
    Gpu("H100-PCIe", 81_559 * _MIB, (9, 0), 2000e9, _rates(756, 1513, 1513), _PCIE_5,
        "H100 data sheet, PCIe, without an NVLink bridge"),
    Gpu("H200", 143_771 * _MIB, (9, 0), 4800e9, _rates(989, 1979, 1979), _NVLINK_4,
        "H200 data sheet, SXM"),
    Gpu("B200", 183_359 * _MIB, (10, 0), 7700e9, _rates(2250, 4500, 4500, 9000), _NVLINK_5,
        "HGX B200 data sheet"),
    Gpu("GB200", 189_471 * _MIB, (10, 0), 8000e9, _rates(2500, 5000, 5000, 10000), _NVLINK_5,
        "GB200 NVL72 data sheet"),
    Gpu("RTX 4090", 24_564 * _MIB, (8, 9), 1008e9, _rates(165.2, 660.6, 330.3), _PCIE_4, _ADA,
        desktop=True),
    Gpu("RTX 5090", 32_607 * _MIB, (12, 0), 1792e9, _rates(209.5, 838, 419, 1676), _PCIE_5,
        _GEFORCE_50, desktop=True),
    Gpu("RTX 6000 Ada", 49_140 * _MIB, (8, 9), 960e9, _rates(364.2, 728.5, 728.5), _PCIE_4,
        "RTX 6000 Ada Generation data sheet", desktop=True),
)
# fmt: on


OLD = {
    "p4": (6, 1),
    "p40": (6, 1),
    "p100": (6, 0),
    "v100": (7, 0),
    "titanv": (7, 0),
    "t4": (7, 5),
    "rtx2080": (7, 5),
    "rtx2080ti": (7, 5),
    "rtx6000": (7, 5),
}
"""GPUs that people still have and no release in the tables serves: Pascal, Volta, Turing."""


def find_gpu(name: str) -> Gpu:
    """The GPU called ``name``, whatever its spelling: ``h100``, ``RTX-4090``, ``A100 80GB``.

    Raises:
        SpecError: none is, or several are.
    """
    wanted = _plain(name)
    by_name = {_plain(gpu.name): gpu for gpu in GPUS}
    for spelling in (wanted, wanted.removesuffix("pcie").removesuffix("gb")):
        if spelling in by_name:
            return by_name[spelling]
    several = [gpu.name for plain, gpu in by_name.items() if wanted and plain.startswith(wanted)]
    if wanted in OLD:
        major, minor = OLD[wanted]
        raise SpecError(
            f"{name} has compute capability {major}.{minor}, which is not supported",
            where="--gpu",
            hint=f"from 8.0 on: {', '.join(gpu.name for gpu in GPUS)}; or cpu",
        )
    near = difflib.get_close_matches(wanted, by_name, n=1, cutoff=0.5)
    if several:
        hint = f"did you mean {' or '.join(several)}?"
    elif near:
        hint = f"did you mean {by_name[near[0]].name}?"
    else:
        hint = f"known: {', '.join(gpu.name for gpu in GPUS)}, cpu"
    raise SpecError(f"unknown GPU {name!r}", where="--gpu", hint=hint)


def _plain(name: str) -> str:
    text = re.sub(r"nvidia|geforce|tesla|generation|[^a-z0-9]", "", name.lower())
    return re.sub(r"(sxm\d?|hbm3e?|gb$)", "", text)
