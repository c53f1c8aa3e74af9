"""What a quantization did, as numbers: goes into the artifact's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from toolkit.quantize.formats import AcceptLimits


@dataclass(frozen=True)
class GateFigures:
    """Quantized against original checkpoint on held-out text.

    Attributes:
        tokens: Positions that were compared.
        perplexity_original: exp of the mean negative log likelihood, in nats.
        perplexity_quantized: The same for the checkpoint that was written.
        kl_divergence: Mean over positions of KL(original || quantized), in nats.
        top1_agreement: Share of positions with the same most likely token.
    """

    tokens: int
    perplexity_original: float
    perplexity_quantized: float
    kl_divergence: float
    top1_agreement: float

    @property
    def perplexity_increase(self) -> float:
        """Relative; 0.05 is five percent more."""
        return self.perplexity_quantized / self.perplexity_original - 1


@dataclass(frozen=True)
class ExportFigures:
    """Written checkpoint against the simulated-quantization model.

    Attributes:
        linears: Quantized layers whose weights and scales were compared.
        tensors: All tensors that were compared.
        fields: Architecture fields that were compared.
        largest_error: Largest difference of a weight, in steps of its own quantization grid.
        differing: Share of weights that lie on another grid point (rounding ties).
    """

    linears: int
    tensors: int
    fields: int
    largest_error: float
    differing: float


@dataclass(frozen=True)
class QuantizationReport:
    """The whole run. Sizes in bytes, times in seconds."""

    weights: str
    kv_cache: str
    block_size: int | None
    quantized_layers: int
    calibration_source: str
    calibration_samples: int
    calibration_tokens: int
    bytes_before: int
    bytes_after: int
    device: str = "cpu"
    peak_memory_bytes: int = 0
    peak_cuda_bytes: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    limits: AcceptLimits | None = None
    gate: GateFigures | None = None
    export: ExportFigures | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, with the derived figures."""
        values = asdict(self)
        if self.gate is not None:
            values["gate"]["perplexity_increase"] = self.gate.perplexity_increase
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> QuantizationReport:
        """The inverse of :meth:`to_json`."""
        plain = dict(values)
        if plain.get("gate") is not None:
            gate = {k: v for k, v in plain["gate"].items() if k != "perplexity_increase"}
            plain["gate"] = GateFigures(**gate)
        if plain.get("export") is not None:
            plain["export"] = ExportFigures(**plain["export"])
        if plain.get("limits") is not None:
            plain["limits"] = AcceptLimits(**plain["limits"])
        return cls(**plain)
