"""Number formats: ``auto`` decided, and what a GPU does not compute with refused."""

from __future__ import annotations

from toolkit.engine.nvidia.refusal import refusal
from toolkit.engine.nvidia.target import Target
from toolkit.releases import Verdict
from toolkit.spec.models import KvFormat, Quantization, WeightFormat

_PREFERRED: tuple[WeightFormat, ...] = ("fp8", "int4_awq", "none")


def settled_formats(spec: Quantization, target: Target) -> Quantization:
    """``spec`` without ``auto``, checked against the release's formats for the GPU.

    Without a GPU the formats are checked against the runtime alone: some GPU must serve them.

    Raises:
        UnsupportedError: the pair does not compute there; the hint names pairs that do.
    """
    if spec.weights == "auto" or spec.kv_cache == "auto":
        spec = spec.model_copy(update=_decided(spec, target))
    verdict = _best(spec.weights, spec.kv_cache, target)
    if verdict.ok:
        return spec
    where = "quantization.weights"
    if spec.kv_cache != "none" and _best(spec.weights, "none", target).ok:
        where = "quantization.kv_cache"
    reason = verdict.reason
    if target.gpu is None:
        reason = (
            f"{target.release.title} serves {spec.weights} weights with {spec.kv_cache} KV cache "
            f"on no GPU in the {target.runtime} runtime"
        )
    raise refusal(where, reason, _hint(verdict, target))


def _hint(verdict: Verdict, target: Target) -> str:
    nearest = verdict.alternatives[:3]
    if not nearest:
        return "use another GPU or engine.release"
    hint = f"what would work: {' or '.join(map(str, nearest))}"
    others = {one.runtime for one in nearest} - {target.runtime}
    return f"{hint}; with engine.runtime: {others.pop()}" if others else hint


def caution(spec: Quantization, target: Target) -> str | None:
    """What is known to go wrong with formats that are documented to work."""
    return _best(spec.weights, spec.kv_cache, target).caution if target.gpu else None


def _decided(spec: Quantization, target: Target) -> dict[str, str]:
    weights, kv_cache = spec.weights, spec.kv_cache
    if weights == "auto":
        first = (target.gpu.weights,) if target.gpu else ()
        fitting = [name for name in (*first, *_PREFERRED) if _best(name, "none", target).ok]
        weights = fitting[0] if fitting else "none"
    if kv_cache == "auto":
        # Without a GPU named, 16 bit is what every GPU serves.
        fp8 = target.gpu is not None and target.gpu.kv_cache == "fp8"
        kv_cache = "fp8" if fp8 and _best(weights, "fp8", target).ok else "none"
    return {"weights": weights, "kv_cache": kv_cache}


def _best(weights: WeightFormat, kv_cache: KvFormat, target: Target) -> Verdict:
    """The verdict for the target's GPU, or the best of all that the release knows."""
    assert weights != "auto", "settled before"
    assert kv_cache != "auto", "settled before"
    if target.gpu is not None:
        capabilities = [target.gpu.compute_capability]
    else:
        rows = target.release.formats
        capabilities = [row.capability for row in rows if row.runtime == target.runtime]
    verdicts = [
        target.release.supports(
            weights=weights,
            kv=kv_cache,
            compute_capability=capability,
            runtime=target.runtime,
        )
        for capability in capabilities
    ]
    return next((verdict for verdict in verdicts if verdict.ok), verdicts[-1])
