"""LoRA adapters: found, held against the deployment, laid out as each runtime reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import read_json
from toolkit.engine.nvidia import NvidiaRuntime
from toolkit.errors import SpecError
from toolkit.pipeline import parts
from toolkit.pipeline.stages import Job
from toolkit.spec.nvidia import Lora

CONFIG = "adapter_config.json"
CONVERTED = ("model.lora_weights.npy", "model.lora_config.npy")
"""What the engine path's server reads (tensorrtllm_backend, docs/lora.md)."""

_MODULES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_dense",
    "gate_proj": "mlp_h_to_4h",
    "up_proj": "mlp_gate",
    "down_proj": "mlp_4h_to_h",
}
"""From the names in adapter_config.json to TensorRT-LLM's (its examples/hf_lora_convert.py)."""


def locate(job: Job, runtime: NvidiaRuntime) -> Mapping[str, Path]:
    """Every adapter's directory by its name.

    Raises:
        SpecError: one is not there, is no adapter, or does not fit ``engine.lora``.
    """
    lora = job.deployment.engine.lora
    found: dict[str, Path] = {}
    for name, source in (lora.adapters if lora else {}).items():
        where = f"engine.lora.adapters.{name}"
        part = parts.Part(source, where, "the adapter")
        found[name] = parts.locate(part, progress=job.progress, offline=job.offline)
        # Only engines take an adapter that is converted already.
        done = runtime == "tensorrt" and is_converted(found[name])
        if lora is not None and not done:
            _check(found[name], lora, runtime, where)
    return found


def is_converted(path: Path) -> bool:
    """Whether the adapter is already in the form that engines take."""
    return all((path / name).is_file() for name in CONVERTED)


def put(found: Mapping[str, Path], out: Path, runtime: NvidiaRuntime) -> None:
    """Link the adapters' files into ``out``: the engine path knows one by its number, the LLM API
    by its folder's name. What engines do not take as it is has been converted into its place."""
    for number, (name, path) in enumerate(found.items()):
        if runtime == "pytorch":
            parts.put(path, out / name)
        elif is_converted(path):
            parts.put(path, out / str(number))


def _check(path: Path, lora: Lora, runtime: NvidiaRuntime, where: str) -> None:
    if not (path / CONFIG).is_file():
        raise SpecError(
            f"{path} has no {CONFIG}", where=where, hint="name a folder that PEFT has saved"
        )
    config = read_json(path / CONFIG)
    rank = max([int(config.get("r", 0)), *map(int, (config.get("rank_pattern") or {}).values())])
    if rank > lora.max_rank:
        raise SpecError(
            f"the adapter's rank is {rank}, engine.lora.max_rank is {lora.max_rank}",
            where=where,
            hint=f"set engine.lora.max_rank: {rank}",
        )
    if runtime == "tensorrt":
        _check_modules(config, lora, where)


def _check_modules(config: Mapping[str, Any], lora: Lora, where: str) -> None:
    """The engine has places for the modules that it was built with, and for no other one."""
    named = config.get("target_modules")
    if not isinstance(named, list):
        return  # an expression; the converter says which modules it stands for
    ends = [str(module).rpartition(".")[2] for module in named]
    theirs = [_MODULES.get(end, end) for end in ends]
    missing = sorted(set(theirs) - set(lora.target_modules))
    if missing:
        wanted = [*lora.target_modules, *missing]
        raise SpecError(
            f"the adapter changes {', '.join(missing)}, which engine.lora.target_modules lacks",
            where=where,
            hint=f"set engine.lora.target_modules: [{', '.join(wanted)}]",
        )
