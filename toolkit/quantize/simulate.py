"""A unified checkpoint as a torch model that computes what a runtime would.

Built from the files alone, with the exported config.json: weights are dequantized by
:mod:`toolkit.quantize.unified`, layer inputs are scaled by ``pre_quant_scale`` and rounded to
their format with the stored ``input_scale``, keys and values to theirs. ModelOpt takes no part,
so a mistake in its export, or in what it was told to export, shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import ValidationFailed
from toolkit.quantize.unified import FP8_MAX, KvScales, QuantizedLinear, UnifiedCheckpoint

if TYPE_CHECKING:
    import torch

_ATTENTION = "toolkit_quantized_kv"
_KV_ATTRIBUTE = "_toolkit_kv_scales"
_SCALES = ("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale", "k_scale", "v_scale")


def load_simulated(path: Path, device: str = "cpu") -> Any:
    """The checkpoint ``path`` as a transformers model in evaluation mode.

    Raises:
        SpecError: the checkpoint is damaged.
        ValidationFailed: it lacks a tensor of the model or has one too many.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    checkpoint = UnifiedCheckpoint(path)
    config = AutoConfig.from_pretrained(path)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    state = _plain_state(checkpoint, config.dtype)
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=state, dtype=config.dtype, output_loading_info=True
    )
    wrong = {*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]}
    if wrong:
        names = ", ".join(sorted(map(str, wrong))[:5])
        raise ValidationFailed(
            f"the exported checkpoint does not fit the model: {names}",
            where=str(path),
        )
    model.eval().to(device)
    _quantize_inputs(model, checkpoint)
    _quantize_kv(model, checkpoint)
    return model


def _plain_state(checkpoint: UnifiedCheckpoint, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    import torch

    linears = set(checkpoint.linear_names())
    state: dict[str, torch.Tensor] = {}
    for name in checkpoint.names:
        module, _, leaf = name.rpartition(".")
        if leaf in _SCALES:
            continue
        if leaf == "weight" and module in linears:
            state[name] = torch.from_numpy(checkpoint.linear(module).dequantize()).to(dtype)
        else:
            state[name] = _to_torch(checkpoint.tensor(name))
    return state


def _to_torch(array: Any) -> torch.Tensor:
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("uint16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _quantize_inputs(model: Any, checkpoint: UnifiedCheckpoint) -> None:
    modules = dict(model.named_modules())
    for name in checkpoint.linear_names():
        linear = checkpoint.linear(name)
        change = _input_change(linear, next(modules[name].parameters()).device)
        if change is not None:
            modules[name].register_forward_pre_hook(
                lambda _module, inputs, change=change: (change(inputs[0]), *inputs[1:])
            )


def _input_change(
    linear: QuantizedLinear, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    import torch

    if linear.weight_format == "none":
        return None
    before = linear.pre_quant_scale
    factor = None if before is None else torch.from_numpy(before).to(device)
    step = linear.input_scale
    if factor is None and step is None:
        return None

    def change(x: torch.Tensor) -> torch.Tensor:
        scaled = x if factor is None else (x * factor).to(x.dtype)
        if step is None:
            return scaled
        if linear.weight_format == "nvfp4":
            return round_nvfp4(scaled, step)
        if linear.weight_format == "int8":
            return round_int8(scaled, step)
        return round_fp8(scaled, step)

    return change


def round_fp8(x: torch.Tensor, step: float) -> torch.Tensor:
    """``x`` on the grid of float8_e4m3 times ``step``, saturating."""
    import torch

    scaled = (x.float() / step).clamp(-FP8_MAX, FP8_MAX)
    return (scaled.to(torch.float8_e4m3fn).float() * step).to(x.dtype)


def round_int8(x: torch.Tensor, step: float) -> torch.Tensor:
    """``x`` on multiples of ``step``, saturating at 127 of them."""
    return ((x.float() / step).round().clamp(-128, 127) * step).to(x.dtype)


def round_nvfp4(x: torch.Tensor, step: float) -> torch.Tensor:
    """``x`` in 4-bit floats with an fp8 scale for every 16 values, itself in units of ``step``.

    ``step`` is amax / (6 * 448), as in ModelOpt ``NVFP4QTensor.get_activation_scaling_factor``.
    """
    import torch

    blocks = x.float().reshape(*x.shape[:-1], -1, 16)
    wanted = blocks.abs().amax(-1, keepdim=True) / 6.0 / step
    scale = wanted.clamp(2**-9, FP8_MAX).to(torch.float8_e4m3fn).float() * step
    values = (blocks / scale).clamp(-6, 6)
    grid = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], device=x.device)
    bounds = (grid[1:] + grid[:-1]) / 2
    nearest = grid[torch.bucketize(values.abs().contiguous(), bounds)]
    return (nearest * values.sign() * scale).reshape(x.shape).to(x.dtype)


def _quantize_kv(model: Any, checkpoint: UnifiedCheckpoint) -> None:
    scales = {}
    for name, module in model.named_modules():
        if name.endswith(".self_attn"):
            found = checkpoint.kv_scales(int(name.split(".")[-2]))
            if found is not None:
                scales[name] = found
                setattr(module, _KV_ATTRIBUTE, found)
    if not scales:
        return
    _register_attention()
    model.set_attn_implementation(_ATTENTION)


def _register_attention() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        scales: KvScales | None = getattr(module, _KV_ATTRIBUTE, None)
        if scales is not None:
            key, value = round_fp8(key, scales.key), round_fp8(value, scales.value)
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    AttentionInterface.register(_ATTENTION, attend)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
