"""Read a unified checkpoint with numpy alone, tensor by tensor.

Layouts, as ModelOpt 0.47 writes them (``export/quant_utils.py``: ``to_quantized_weight``,
``pack_int4_in_uint8``, ``get_scaling_factor``; ``qtensor/nvfp4_tensor.py``):

========  ==========================================  =========================================
format    ``weight``                                  scales
========  ==========================================  =========================================
fp8       float8_e4m3 [out, in]                       ``weight_scale`` scalar or [out]
int8      int8 [out, in]                              ``weight_scale`` [out]
int4      uint8 [out/2, in]; low nibble = even row,   ``weight_scale`` [out, in/block]; W4A8 has
          two's complement                            ``weight_scale_2``: after unpacking, the
                                                      weight is rounded to fp8 at that scale
nvfp4     uint8 [out, in/2]; low nibble = even input  ``weight_scale`` fp8 [out, in/16] times
                                                      ``weight_scale_2``
========  ==========================================  =========================================

``input_scale`` is the step of the activations. ``pre_quant_scale`` [in] multiplies the layer's
*input* before that; the stored weight was divided by it. AWQ keeps it only where no norm stands
before the layer (o_proj, down_proj) and folds the others into the norm's weight
(``fuse_prequant_layernorm``); SmoothQuant keeps all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.checkpoint.architecture import read_json
from toolkit.checkpoint.safetensors_file import TensorInfo, read_header, read_tensor
from toolkit.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Floats = NDArray[np.float32]

WeightKind = Literal["none", "fp8", "int8", "int4", "nvfp4"]
HF_QUANT_CONFIG = "hf_quant_config.json"
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of a 4-bit float with two exponent bits and one of mantissa."""
FP8_MAX = 448.0


@dataclass(frozen=True)
class QuantConfig:
    """``hf_quant_config.json``: what the whole checkpoint uses."""

    quant_algo: str | None
    kv_cache_quant_algo: str | None
    group_size: int | None
    exclude_modules: tuple[str, ...]


@dataclass(frozen=True)
class KvScales:
    """Steps of the quantized keys and values of one layer: stored value x scale = value."""

    key: float
    value: float


@dataclass(frozen=True)
class QuantizedLinear:
    """One linear layer as stored, ``y = (x * pre_quant_scale) @ dequantize().T + bias``.

    Attributes:
        name: Module name, such as ``model.layers.0.mlp.up_proj``.
        weight_format: How ``values`` are to be read.
        values: [out, in]; fp8 as float8_e4m3fn, int8 and unpacked int4 as int8, nvfp4 unpacked to
            float32 multiples of 0.5, none in the checkpoint's own float type.
        scale: float32, scalar, [out] or [out, in/block]; None for format none. For nvfp4 it is
            the product of the block's and the tensor's scale.
        block: Inputs that share one scale, None without blocks.
        pre_quant_scale: float32 [in] or None.
        input_scale: Step of the quantized input, None where inputs stay in full precision.
        second_scale: W4A8 only: step of the fp8 grid that the unpacked weight is rounded to.
        bias: [out] or None.
    """

    name: str
    weight_format: WeightKind
    values: Array
    scale: Floats | None = None
    block: int | None = None
    pre_quant_scale: Floats | None = None
    input_scale: float | None = None
    second_scale: float | None = None
    bias: Array | None = None

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return int(self.values.shape[0])

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return int(self.values.shape[1])

    def dequantize(self) -> Floats:
        """The weight in float32 [out, in], for inputs already multiplied by ``pre_quant_scale``."""
        import numpy as np

        values = self.values.astype(np.float32)
        if self.scale is None:
            return values
        if self.block is not None:
            blocks = values.reshape(self.out_features, -1, self.block)
            blocks *= self.scale[:, :, None]
        else:
            values *= self.scale[:, None] if self.scale.ndim == 1 else self.scale
        return values if self.second_scale is None else round_fp8(values, self.second_scale)

    def effective_weight(self) -> Floats:
        """The weight in float32 [out, in] that multiplies the layer's unscaled input."""
        weight = self.dequantize()
        return weight if self.pre_quant_scale is None else weight * self.pre_quant_scale


def round_fp8(values: Floats, scale: float) -> Floats:
    """``values`` on the grid of float8_e4m3 times ``scale``, saturating at 448 steps."""
    import ml_dtypes
    import numpy as np

    steps = np.clip(values / np.float32(scale), -FP8_MAX, FP8_MAX)
    return steps.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(scale)


class UnifiedCheckpoint:
    """A checkpoint directory, plain or quantized; arrays are mapped, not loaded.

    Raises:
        SpecError: config.json or the weights are missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, tuple[Path, TensorInfo]] = {}
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise SpecError("no *.safetensors file", where=str(path))
        for file in files:
            for info in read_header(file):
                self._files[info.name] = (file, info)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json."""
        return read_json(self.path / "config.json")

    @cached_property
    def quantization(self) -> QuantConfig:
        """What ``hf_quant_config.json`` declares; all None for a plain checkpoint."""
        file = self.path / HF_QUANT_CONFIG
        section = read_json(file).get("quantization", {}) if file.exists() else {}
        return QuantConfig(
            quant_algo=section.get("quant_algo"),
            kv_cache_quant_algo=section.get("kv_cache_quant_algo"),
            group_size=section.get("group_size"),
            exclude_modules=tuple(section.get("exclude_modules") or ()),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Every stored tensor."""
        return tuple(self._files)

    def info(self, name: str) -> TensorInfo:
        """Type and shape of a stored tensor, without reading it."""
        return self._files[name][1]

    def tensor(self, name: str) -> Array:
        """A stored tensor as it is, read-only.

        Raises:
            SpecError: there is no such tensor.
        """
        if name not in self._files:
            raise SpecError(f"tensor {name} is missing", where=str(self.path))
        file, info = self._files[name]
        return read_tensor(file, info)

    def linear_names(self) -> tuple[str, ...]:
        """Modules whose weight is a matrix that multiplies (no embedding table)."""
        return tuple(
            name.removesuffix(".weight")
            for name, (_, info) in self._files.items()
            if name.endswith(".weight") and len(info.shape) == 2 and "embed" not in name
        )

    def linears(self) -> Iterator[QuantizedLinear]:
        """Every linear layer, one at a time."""
        for name in self.linear_names():
            yield self.linear(name)

    def linear(self, name: str) -> QuantizedLinear:
        """The linear layer ``name``.

        Raises:
            SpecError: it is missing, or its scales do not fit its weight.
        """
        weight = self.tensor(f"{name}.weight")
        bias = self._optional(f"{name}.bias")
        if f"{name}.weight_scale" not in self._files:
            return QuantizedLinear(name, "none", weight, bias=bias)
        scale = self.tensor(f"{name}.weight_scale")
        second = self._scalar(f"{name}.weight_scale_2")
        kind, values = _unpack(weight, scale, second, where=f"{self.path}: {name}")
        scales = _combine(kind, scale, second)
        _check_scales(name, values, scales, self.path)
        return QuantizedLinear(
            name=name,
            weight_format=kind,
            values=values,
            scale=scales,
            block=values.shape[1] // scales.shape[1] if scales.ndim == 2 else None,
            pre_quant_scale=self._float(f"{name}.pre_quant_scale"),
            input_scale=self._scalar(f"{name}.input_scale"),
            second_scale=second if kind == "int4" else None,
            bias=bias,
        )

    def kv_scales(self, layer: int) -> KvScales | None:
        """Scales of the quantized KV cache of one layer; None where it is not quantized."""
        prefix = f"model.layers.{layer}.self_attn"
        key = self._scalar(f"{prefix}.k_proj.k_scale")
        value = self._scalar(f"{prefix}.v_proj.v_scale")
        return None if key is None or value is None else KvScales(key, value)

    def _optional(self, name: str) -> Array | None:
        return self.tensor(name) if name in self._files else None

    def _float(self, name: str) -> Floats | None:
        import numpy as np

        found = self._optional(name)
        return None if found is None else found.astype(np.float32)

    def _scalar(self, name: str) -> float | None:
        found = self._optional(name)
        return None if found is None else float(found.reshape(-1)[0])


def _unpack(
    weight: Array, scale: Array, second: float | None, where: str
) -> tuple[WeightKind, Array]:
    kind = weight.dtype.name
    if kind == "float8_e4m3fn":
        return "fp8", weight
    if kind == "int8":
        return "int8", weight
    if kind == "uint8" and scale.dtype.name == "float8_e4m3fn" and second is not None:
        return "nvfp4", unpack_nvfp4(weight)
    if kind == "uint8":
        return "int4", unpack_int4(weight)
    raise SpecError(f"a weight of type {kind} with a scale is not understood", where=where)


def unpack_int4(packed: Array) -> NDArray[np.int8]:
    """uint8 [out/2, in] to int8 [out, in] in -8..7; the low nibble is the even row."""
    import numpy as np

    rows = np.empty((packed.shape[0] * 2, packed.shape[1]), np.int8)
    rows[0::2] = (packed << 4).view(np.int8) >> 4
    rows[1::2] = packed.view(np.int8) >> 4
    return rows


def unpack_nvfp4(packed: Array) -> Floats:
    """uint8 [out, in/2] to float32 [out, in]; the low nibble is the even input, bit 3 the sign."""
    import numpy as np

    table = np.array([*E2M1, *(-value for value in E2M1)], np.float32)
    values = np.empty((packed.shape[0], packed.shape[1] * 2), np.float32)
    values[:, 0::2] = table[packed & 0x0F]
    values[:, 1::2] = table[packed >> 4]
    return values


def _combine(kind: WeightKind, scale: Array, second: float | None) -> Floats:
    import numpy as np

    scales = scale.astype(np.float32)
    if kind == "nvfp4" and second is not None:
        scales = scales * np.float32(second)
    if scales.size == 1:
        return scales.reshape(())
    if scales.ndim == 2 and scales.shape[1] == 1:
        return scales.reshape(-1)
    return scales


def _check_scales(name: str, values: Array, scales: Floats, path: Path) -> None:
    import numpy as np

    rows, inputs = values.shape
    fits = (
        scales.ndim == 0
        or scales.shape == (rows,)
        or (scales.ndim == 2 and scales.shape[0] == rows and inputs % scales.shape[1] == 0)
    )
    if not fits:
        raise SpecError(
            f"{name}: scales of shape {scales.shape} do not fit a weight of {values.shape}",
            where=str(path),
        )
    if not bool(np.all(np.isfinite(scales))) or bool(np.any(scales < 0)):
        raise SpecError(f"{name}: a weight scale is negative or not finite", where=str(path))
