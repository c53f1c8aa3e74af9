"""How much of what a data sheet promises a serving engine gets, and what a step costs beside."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from toolkit.errors import SpecError


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The factors between the hardware's figures and an engine's times.

    Attributes:
        bandwidth: Share of the memory bandwidth that weights and KV cache are read with.
        compute: Share of the tensor rate that matrix products reach.
        link: Share of the link's bandwidth that collective operations reach.
        step_s: Seconds of every step whatever is in it: scheduling, sampling, launches.
        layer_s: Seconds of every layer of a step: its kernels' starts and small operations.
        row_s: Seconds of every request in a step.
        collective_s: Seconds of every collective operation, whatever its size.
        source: Where the figures come from.
    """

    bandwidth: float
    compute: float
    link: float
    step_s: float
    layer_s: float
    row_s: float
    collective_s: float
    source: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def read_efficiency(data: object, where: str) -> Efficiency:
    """What :meth:`Efficiency.as_json` wrote.

    Raises:
        SpecError: a figure is missing or cannot be one.
    """
    if not isinstance(data, dict):
        raise SpecError("efficiency factors are not a mapping", where=where)
    found: dict[str, Any] = {}
    for field in fields(Efficiency):
        value = data.get(field.name)
        if field.name == "source":
            found["source"] = str(value or "")
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise SpecError(f"{field.name} is {value!r}, expected a number", where=where)
        if field.name in ("bandwidth", "compute", "link") and value == 0:
            raise SpecError(f"{field.name} is 0: nothing would ever be done", where=where)
        found[field.name] = float(value)
    return Efficiency(**found)


TENSORRT_LLM = Efficiency(
    bandwidth=0.9,
    compute=0.7,
    link=0.45,
    step_s=1.5e-4,
    layer_s=5.6e-5,
    row_s=2.2e-5,
    collective_s=0.0,
    source="fitted to 540 published runs of TensorRT-LLM: half within 7 %, nine of ten within 17 %",
)
"""Bandwidth is held, for the runs do not tell it from a layer's time; the others are least squares
on the logarithms of the time per output token in 540 runs of TensorRT-LLM that
ai-dynamo/aiconfigurator publishes (systems/silicon_sample.csv at 095f58a51c4c): Llama-3.1 8B in 16
bit and Qwen3-32B in FP8 on H100, Llama-3.1-70B in FP8 and NVFP4 on H200 and B200, 1 to 8 GPUs, 4
to 224 users; those whose requests the KV cache cannot hold at once are left out. Other GPUs are
extrapolated. A part of them is in tests/capacity/tensorrt_llm_runs.csv."""

CPU_ENGINE = Efficiency(
    bandwidth=0.6,
    compute=0.35,
    link=1.0,
    step_s=2e-3,
    layer_s=5e-5,
    row_s=5e-4,
    collective_s=0.0,
    source="a guess: calibrate it with a measured report (toolkit plan FILE --calibrate)",
)
