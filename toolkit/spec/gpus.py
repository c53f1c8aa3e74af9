"""What the GPUs that people deploy on can hold and compute.

Sources, read in November 2026:

- compute capability: NVIDIA's table developer.nvidia.com/cuda-gpus; the A100's from the table of
  GPUs in NVIDIA's MIG user guide (docs.nvidia.com/datacenter/tesla/mig-user-guide);
- memory: what the driver reports as the total (nvidia-smi) in published outputs of machines with
  the card, error correction on where the card has it. It lies below the figure of the name: the
  driver keeps a part, and error correction takes another on cards with GDDR memory.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from toolkit.errors import SpecError
from toolkit.spec.models import KvFormat, WeightFormat

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One model of GPU.

    Attributes:
        memory: Bytes that the driver reports.
        compute_capability: Major and minor.
        desktop: It may also drive a display.
    """

    name: str
    memory: int
    compute_capability: tuple[int, int]
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


GPUS = (
    Gpu("A10", 23_028 * _MIB, (8, 6)),
    Gpu("A100-40", 40_960 * _MIB, (8, 0)),
    Gpu("A100-80", 81_920 * _MIB, (8, 0)),
    Gpu("L4", 23_034 * _MIB, (8, 9)),
    Gpu("L40S", 46_068 * _MIB, (8, 9)),
    Gpu("H100", 81_559 * _MIB, (9, 0)),
    Gpu("H200", 143_771 * _MIB, (9, 0)),
    Gpu("B200", 183_359 * _MIB, (10, 0)),
    Gpu("GB200", 189_471 * _MIB, (10, 0)),
    Gpu("RTX 4090", 24_564 * _MIB, (8, 9), desktop=True),
    Gpu("RTX 5090", 32_607 * _MIB, (12, 0), desktop=True),
)


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
    if wanted in by_name:
        return by_name[wanted]
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
    text = re.sub(r"nvidia|geforce|tesla|[^a-z0-9]", "", name.lower())
    return re.sub(r"(sxm\d?|pcie|hbm3e?|gb$)", "", text)
