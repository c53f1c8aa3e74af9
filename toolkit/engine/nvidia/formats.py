"""Number formats: ``auto`` decided, and what a GPU does not compute with refused."""

from __future__ import annotations

from toolkit.engine.nvidia.refusal import refusal
from toolkit.engine.nvidia.target import Target
from toolkit.releases import Combination, Verdict
from toolkit.spec.models import KvFormat, Quantization, WeightFormat

_PREFERRED: tuple[WeightFormat, ...] = ("fp8", "int4_awq", "none")
_BLACKWELL = range(10, 12)
_INTEGERS = ("int4_awq", "w4a8_awq", "int8_sq")


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
        )
        reason += f"on no GPU in the {target.runtime} runtime"
    near = " or ".join(map(str, verdict.alternatives[:3]))
    hint = f"what would work: {near}" if near else "use another GPU or engine.release"
    if spec.weights == "int8_sq" and target.runtime == "pytorch":
        hint += "; int8_sq belongs to engine.runtime: tensorrt"
    raise refusal(where, reason, hint)


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
    wanted = Combination(target.runtime, weights, kv_cache)
    if target.gpu is not None:
        capabilities = [target.gpu.compute_capability]
    else:
        rows = target.release.formats
        capabilities = [row.capability for row in rows if row.runtime == target.runtime]
    verdicts = [_verdict(wanted, capability, target) for capability in capabilities]
    return next((verdict for verdict in verdicts if verdict.ok), verdicts[-1])


def _verdict(wanted: Combination, capability: tuple[int, int], target: Target) -> Verdict:
    verdict = target.release.supports(
        weights=wanted.weights,
        kv=wanted.kv_cache,
        compute_capability=capability,
        runtime=wanted.runtime,
    )
    why = _builder_refusal(wanted, capability)
    near = tuple(one for one in verdict.alternatives if not _builder_refusal(one, capability))
    if verdict.ok and why is not None:
        return Verdict(False, why, _on_blackwell(wanted, capability, target))
    return Verdict(verdict.ok, verdict.reason, near, verdict.caution)


def _builder_refusal(wanted: Combination, capability: tuple[int, int]) -> str | None:
    """INT8 and INT4 engines on data-centre Blackwell: upstream's table has them, and
    ``tensorrt_llm/builder.py`` (008b2b8d23af) refuses them there."""
    if wanted.runtime != "tensorrt" or capability[0] not in _BLACKWELL:
        return None
    where = f"on compute capability {capability[0]}.{capability[1]}"
    if wanted.weights in _INTEGERS:
        return f"trtllm-build refuses {wanted.weights} {where}"
    return f"trtllm-build refuses an int8 KV cache {where}" if wanted.kv_cache == "int8" else None


def _on_blackwell(
    wanted: Combination, capability: tuple[int, int], target: Target
) -> tuple[Combination, ...]:
    offered = (
        Combination("tensorrt", "fp8", "fp8"),
        Combination("tensorrt", "nvfp4", "fp8"),
        Combination("pytorch", wanted.weights, "none"),
    )
    return tuple(
        one
        for one in offered
        if target.release.supports(
            weights=one.weights,
            kv=one.kv_cache,
            compute_capability=capability,
            runtime=one.runtime,
        ).ok
    )
