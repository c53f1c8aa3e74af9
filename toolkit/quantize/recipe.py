"""A resolved quantization as ModelOpt's configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.modules import LM_HEAD, excluded

# ModelOpt 0.47 has no constant for it; the shape is that of its FP8_KV_CFG.
_INT8_KV: list[dict[str, Any]] = [
    {"quantizer_name": "*[kv]_bmm_quantizer", "cfg": {"num_bits": 8, "axis": None}}
]
_NOTHING: dict[str, Any] = {
    "quant_cfg": [{"quantizer_name": "*", "enable": False}],
    "algorithm": "max",
}


def modelopt_config(
    resolved: ResolvedQuantization, exclude: tuple[str, ...], modules: Mapping[str, object]
) -> dict[str, Any]:
    """What ``mtq.quantize`` takes.

    Args:
        resolved: The formats.
        exclude: Patterns of layers that keep full precision.
        modules: The loaded model's linear layers by name.
    """
    import modelopt.torch.quantization as mtq

    name = resolved.weights.modelopt_config
    config: dict[str, Any] = copy.deepcopy(getattr(mtq, name) if name else _NOTHING)
    entries: list[dict[str, Any]] = config["quant_cfg"]
    if resolved.block_size is not None:
        for attributes in _attributes(entries):
            if attributes.get("block_sizes"):
                attributes["block_sizes"][-1] = resolved.block_size
    left_out = excluded(modules, exclude)
    if name and LM_HEAD in modules and LM_HEAD not in left_out:
        entries[:] = [entry for entry in entries if entry.get("quantizer_name") != "*lm_head*"]
    entries += [{"quantizer_name": f"{module}.*", "enable": False} for module in sorted(left_out)]
    entries += _kv_entries(resolved)
    return config


def _kv_entries(resolved: ResolvedQuantization) -> list[dict[str, Any]]:
    import modelopt.torch.quantization as mtq

    if resolved.kv_cache.name == "none":
        return []
    if resolved.kv_cache.modelopt_config is None:
        return copy.deepcopy(_INT8_KV)
    entries = getattr(mtq, resolved.kv_cache.modelopt_config)["quant_cfg"]
    return [copy.deepcopy(entry) for entry in entries]


def _attributes(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for entry in entries:
        value = entry.get("cfg")
        found += value if isinstance(value, list) else [value] if value else []
    return found
