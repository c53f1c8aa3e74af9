"""What an ablation switches: each optimization of a deployment file, and the file without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.doctor.need import resolved_runtime
from toolkit.spec.models import Batching, Deployment, KvCache, Quantization

STATIC, IN_FLIGHT = "static", "in-flight"
SCHEDULING = "scheduling"
_FP_GEMMS = ("fp8", "nvfp4")


@dataclass(frozen=True)
class Feature:
    """One optimization.

    Attributes:
        key: Its name on the command line and in reports.
        title: Its name in tables.
        pays: What it does and where it is known to pay, for a step that did not help.
        lacking: Why a deployment does not have it; None where it does.
        off: The fields that switch it off, as sections below the deployment.
    """

    key: str
    title: str
    pays: str
    lacking: Callable[[Deployment], str | None]
    off: Callable[[Deployment], Mapping[str, Any]]


def changed(deployment: Deployment, changes: Mapping[str, Any]) -> Deployment:
    """``deployment`` with nested fields replaced (a mapping descends), checked anew.

    Raises:
        pydantic.ValidationError: the result breaks a rule of the file.
    """
    plain = deployment.model_dump(exclude_unset=True)
    return Deployment.model_validate(_merged(plain, changes))


def _merged(plain: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(plain)
    for name, value in changes.items():
        below = result.get(name) or {}
        result[name] = _merged(below, value) if isinstance(value, Mapping) else value
    return result


def one_at_a_time(deployment: Deployment) -> Mapping[str, Any]:
    """No batching of any kind: each replica serves one request to its end, then the next."""
    graphs = deployment.engine.cuda_graphs
    recorded = {"cuda_graphs": {"batch_sizes": (1,)}} if graphs.batch_sizes else {}
    return {
        "engine": {
            "limits": {"max_batch_size": 1},
            "batching": {"policy": Batching().policy, "queue_delay": 0.0},
            **recorded,
        }
    }


def _static(deployment: Deployment) -> Mapping[str, Any]:
    return {"engine": {"batching": {"policy": "static_batch"}}}


def _unchunked(deployment: Deployment) -> Mapping[str, Any]:
    limits = deployment.engine.limits
    # A whole prompt has to fit a step then.
    step = max(limits.max_num_tokens, limits.max_input_len)
    return {
        "engine": {
            "limits": {"max_num_tokens": step},
            "batching": {"chunked_prefill": False, "chunking": None},
        }
    }


def _forgetful(deployment: Deployment) -> Mapping[str, Any]:
    # What is moved to the host is moved there to be reused.
    return {"engine": {"kv_cache": {"reuse": False, "host_offload": KvCache().host_offload}}}


def _full_precision(deployment: Deployment) -> Mapping[str, Any]:
    tensorrt = deployment.engine.tensorrt
    kernels: dict[str, Any] = {}
    if tensorrt.gemm_plugin in _FP_GEMMS:
        kernels["gemm_plugin"] = None
    for name in ("low_latency_gemm", "user_buffer"):  # they are for fp8 weights only
        if getattr(tensorrt, name):
            kernels[name] = False
    engine: dict[str, Any] = {"tensorrt": kernels} if kernels else {}
    if _computes_in_16_bits(deployment):
        engine["dtype"] = "auto"
    formats = {"weights": Quantization().weights, "kv_cache": Quantization().kv_cache}
    return {"quantization": formats, **({"engine": engine} if engine else {})}


def _computes_in_16_bits(deployment: Deployment) -> bool:
    """Whether the file asks for less than the CPU runtime's float32.

    On GPUs 16 bits are the checkpoint's own, and no step down.
    """
    on_cpu = resolved_runtime(deployment) == "openvino"
    return on_cpu and deployment.engine.dtype == "bfloat16"


def _undrafted(deployment: Deployment) -> Mapping[str, Any]:
    return {"engine": {"speculation": None}}


def _direct(deployment: Deployment) -> Mapping[str, Any]:
    return {"gateway": {"enabled": False}}


def _lacks_batching(deployment: Deployment) -> str | None:
    if deployment.engine.limits.max_batch_size > 1:
        return None
    return "engine.limits.max_batch_size is 1 in the file"


def _lacks_in_flight(deployment: Deployment) -> str | None:
    if deployment.engine.batching.policy == "static_batch":
        return "engine.batching.policy is static_batch in the file"
    return _lacks_batching(deployment)


def _lacks_formats(deployment: Deployment) -> str | None:
    formats = deployment.quantization
    plain = formats.weights == "none" and formats.kv_cache in ("none", "auto")
    if plain and not _computes_in_16_bits(deployment):
        return "quantization.weights is none in the file"
    return None


def _absent(field: str, has: Callable[[Deployment], object]) -> Callable[[Deployment], str | None]:
    return lambda deployment: None if has(deployment) else f"{field} in the file"


FEATURES: tuple[Feature, ...] = (
    Feature(
        STATIC,
        "static batching",
        "It serves a batch to the end of its longest answer: it pays against one request at a "
        "time.",
        _lacks_batching,
        one_at_a_time,
    ),
    Feature(
        IN_FLIGHT,
        "in-flight batching",
        "Requests join and leave at every step: it pays where answers differ in length or arrive "
        "apart.",
        _lacks_in_flight,
        _static,
    ),
    Feature(
        "chunked-prefill",
        "chunked prefill",
        "Prompts are split over steps: it pays where long prompts arrive beside running answers, "
        "in ITL p95.",
        _absent(
            "engine.batching.chunked_prefill is off", lambda d: d.engine.batching.chunked_prefill
        ),
        _unchunked,
    ),
    Feature(
        "kv-reuse",
        "KV reuse",
        "Known prefixes are not computed again: it pays where prompts share their beginning.",
        _absent("engine.kv_cache.reuse is off", lambda d: d.engine.kv_cache.reuse),
        _forgetful,
    ),
    Feature(
        "quantization",
        "quantization",
        "Weights, KV cache and on CPUs arithmetic have fewer bits: it pays where memory bandwidth "
        "is the limit, and where the processor computes faster in the format.",
        _lacks_formats,
        _full_precision,
    ),
    Feature(
        "speculation",
        "speculation",
        "Drafts are checked several in a step: they pay at few requests, where arithmetic is idle.",
        _absent("engine.speculation is not set", lambda d: d.engine.speculation),
        _undrafted,
    ),
    Feature(
        SCHEDULING,
        "scheduling",
        "The gateway orders and routes: it pays with classes of different urgency, rates beyond "
        "what the engine can do, or several replicas; one class of users who wait for their "
        "answers leaves nothing to order.",
        _absent("gateway.enabled is off", lambda d: d.gateway.enabled),
        _direct,
    ),
)


def derived(deployment: Deployment, on: frozenset[str]) -> Deployment:
    """``deployment`` with exactly the features of ``on``, of those that it has.

    Static batching is what remains of batching without in-flight batching; ``in-flight``
    includes it.
    """
    found = deployment
    for feature in FEATURES:
        if feature.key in on or feature.lacking(deployment):
            continue
        if feature.key == STATIC and IN_FLIGHT in on:
            continue
        if feature.key == IN_FLIGHT and STATIC not in on:
            continue  # one at a time already
        found = changed(found, feature.off(found))
    return found
