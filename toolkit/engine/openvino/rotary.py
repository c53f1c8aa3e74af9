"""Rotary frequencies as each checkpoint stretches them to longer contexts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.checkpoint.rope import LinearRope, Llama3Rope, RopeScaling, YarnRope
from toolkit.errors import UnsupportedError

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float64]]


def frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], float]:
    """Angular frequency per pair of dimensions [head_dim / 2], and the factor on cos and sin.

    The plain form is Su et al., 2021 (arXiv 2104.09864).

    Raises:
        UnsupportedError: a scaling that is not computed here.
    """
    plain = theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling is None:
        return plain.astype(np.float32), 1.0
    if isinstance(scaling, LinearRope):
        return (plain / scaling.factor).astype(np.float32), 1.0
    if isinstance(scaling, Llama3Rope):
        return _llama3(plain, scaling).astype(np.float32), 1.0
    if isinstance(scaling, YarnRope):
        factor = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0
        return _yarn(plain, theta, head_dim, scaling).astype(np.float32), factor
    raise UnsupportedError(
        f"rope scaling {scaling.name!r} is not supported by the openvino runtime",
        where="config.json: rope_parameters",
        hint="use a checkpoint with plain, linear, llama3 or yarn scaling",
    )


def _llama3(plain: Floats, scaling: Llama3Rope) -> Floats:
    """Long wavelengths are stretched, short ones kept, with a linear ramp between."""
    turns = scaling.original_max_position * plain / (2 * math.pi)
    ramp = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(ramp, 0.0, 1.0)
    return kept * plain + (1 - kept) * plain / scaling.factor


def _yarn(plain: Floats, theta: float, head_dim: int, scaling: YarnRope) -> Floats:
    """As in llama3, but the ramp runs over dimension indices (arXiv 2309.00071, section 3.2)."""

    def dimension(turns: float) -> float:
        wavelength = scaling.original_max_position / (turns * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_dim - 1)
    ramp = (np.arange(head_dim // 2, dtype=np.float64) - low) / max(high - low, 0.001)
    stretched = np.clip(ramp, 0.0, 1.0)
    return stretched * plain / scaling.factor + (1 - stretched) * plain
