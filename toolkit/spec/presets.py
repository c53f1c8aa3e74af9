"""A first deployment file: values chosen for a GPU and a goal, each with the reason beside it.

The numbers are starting points by memory and goal, not measurements; the file says so.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypeAlias

from toolkit.errors import SpecError
from toolkit.spec.document import Json, MappingNode, parse_value
from toolkit.spec.gpus import Gpu
from toolkit.spec.loading import validate
from toolkit.spec.models import RESERVED_NAMES, Deployment
from toolkit.spec.overrides import Override, apply
from toolkit.spec.problems import Place
from toolkit.spec.writing import scalar

Goal: TypeAlias = Literal["latency", "throughput"]

_LARGE = 40_000 * 2**20
_WIDTH = 96
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class Preset:
    """A deployment and why its fields are what they are, by dotted name."""

    deployment: Deployment
    values: Mapping[str, Json]
    reasons: Mapping[str, str]
    title: str


def choose(
    source: str,
    *,
    gpu: Gpu | None,
    goal: Goal,
    name: str | None = None,
    context: int | None = None,
) -> Preset:
    """The preset for a model, a GPU (None: the CPU runtime) and a goal.

    ``context`` is the model's longest sequence in tokens, where it is known: no limit is above.

    Raises:
        SpecError: ``source`` is a bare hub name, or ``name`` cannot name a deployment.
    """
    check_name(source)
    values: dict[str, Json] = {
        "name": name or name_from(source),
        "model.source": source,
        **(_on_gpu(gpu, goal) if gpu else _on_cpu(goal)),
        **_serving(gpu, goal),
    }
    if context is not None:
        longest = min(context, int(str(values["engine.limits.max_seq_len"])))
        # An eighth at least stays for the answer.
        most = min(int(str(values["engine.limits.max_input_len"])), max(1, longest * 7 // 8))
        values |= {"engine.limits.max_seq_len": longest, "engine.limits.max_input_len": most}
    where = f"{gpu.name} ({gpu.memory / 2**30:.1f} GiB)" if gpu else "CPU"
    return Preset(
        validate(apply(MappingNode({}, Place("toolkit init")), _as_overrides(values))),
        values,
        _reasons(gpu, goal),
        f"{source} on {where}, for {goal}",
    )


def render(preset: Preset, *, schema: str | None = None) -> str:
    """The preset as a commented file; loading it gives the preset's deployment.

    Args:
        schema: Path or URL of the JSON Schema, for editors.
    """
    lines = [f"# yaml-language-server: $schema={schema}"] if schema else []
    lines += _comment(f"{preset.title}. Written by toolkit init.", 0)
    lines += _comment(
        "The numbers are starting points: change one, build, and compare with toolkit bench. "
        "Fields that are not here keep their defaults; toolkit schema lists all of them.",
        0,
    )
    lines += _fields(preset)
    return "\n".join(lines) + "\n"


def name_from(source: str) -> str:
    """A deployment's name for a model: its last part, in the letters that a name may have."""
    last = PurePath(re.sub(r"^(hf://|sample:)", "", source.partition("@")[0])).name
    last = re.sub(r"(?i)\.gguf$", "", last).lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", last)[:55].strip("-_") or "model"
    return f"{name}-service" if name in RESERVED_NAMES else name


def check_name(source: str) -> None:
    """Refuse a name that may mean a folder and a model of the hub.

    Raises:
        SpecError: ``source`` is one.
    """
    if _HUB_NAME.fullmatch(source) and not PurePath(source).suffix == ".gguf":
        raise SpecError(
            f"{source} could be a folder or a model of the hub",
            where="--model",
            hint=f"write hf://{source} for the hub, ./{source} for a folder",
        )


def _on_gpu(gpu: Gpu, goal: Goal) -> dict[str, Json]:
    large, fast = gpu.memory >= _LARGE, goal == "latency"
    return {
        "quantization.weights": gpu.weights,
        "quantization.kv_cache": gpu.kv_cache,
        "quantization.calibration.source": "builtin",
        "quantization.calibration.samples": 512,
        "engine.runtime": "pytorch",
        "engine.limits.max_batch_size": (32 if large else 16) if fast else (256 if large else 64),
        "engine.limits.max_input_len": 8192 if large else 3072,
        "engine.limits.max_seq_len": 9216 if large else 4096,
        "engine.limits.max_num_tokens": 2048 if fast else (8192 if large else 4096),
        "engine.parallelism.tensor": 1,
        "engine.kv_cache.reuse": True,
        "engine.kv_cache.free_memory_fraction": 0.8 if gpu.desktop else 0.9,
        **_batching(goal),
    }


def _on_cpu(goal: Goal) -> dict[str, Json]:
    fast = goal == "latency"
    return {
        "quantization.weights": "none",
        "quantization.kv_cache": "none",
        "engine.runtime": "openvino",
        "engine.limits.max_batch_size": 8 if fast else 32,
        "engine.limits.max_input_len": 1536,
        "engine.limits.max_seq_len": 2048,
        "engine.limits.max_num_tokens": 512 if fast else 2048,
        "engine.kv_cache.reuse": True,
        **_batching(goal),
    }


def _batching(goal: Goal) -> dict[str, Json]:
    fast = goal == "latency"
    return {
        "engine.batching.policy": "guaranteed_no_evict",
        "engine.batching.chunked_prefill": True,
        "engine.batching.max_queue_size": 64 if fast else 1024,
        "engine.batching.stream_interval": 1 if fast else 4,
    }


def _serving(gpu: Gpu | None, goal: Goal) -> dict[str, Json]:
    slow = 1 if gpu else 4
    interactive: dict[str, Json] = {"weight": 8, "ttft_ms": 500 * slow, "itl_ms": 50 * slow}
    if goal == "throughput":
        interactive = {"weight": 8, "ttft_ms": 2000 * slow}
    placement: dict[str, Json] = {"serving.gpus": [0]} if gpu else {}
    return {
        "serving.launcher": "auto",
        "serving.host": "127.0.0.1",
        **placement,
        "serving.ports": {"http": 8000, "grpc": 8001, "metrics": 8002},
        "serving.ready_timeout": "10min" if gpu else "5min",
        "serving.drain_timeout": "30s",
        "scheduling.classes.interactive": interactive,
        "scheduling.classes.batch": {"weight": 1, "ttft_ms": 20_000 * slow},
    }


def _reasons(gpu: Gpu | None, goal: Goal) -> dict[str, str]:
    return {
        **_REASONS,
        **(_LATENCY if goal == "latency" else _THROUGHPUT),
        **(_gpu_reasons(gpu) if gpu else _CPU),
    }


def _gpu_reasons(gpu: Gpu) -> dict[str, str]:
    major, minor = gpu.compute_capability
    formats = {
        "nvfp4": "computes in NVFP4: a quarter of the 16-bit size. fp8 is the safer choice where "
        "the accuracy gate of the build fails.",
        "fp8": "computes in FP8: half the 16-bit size at little loss.",
        "int4_awq": "has no FP8 arithmetic: 4-bit weights, a quarter of the 16-bit size, "
        "computed in 16 bit.",
    }
    return {
        "quantization.weights": f"{gpu.name} (compute capability {major}.{minor}) "
        f"{formats[gpu.weights]} none keeps the checkpoint's own format.",
        "quantization.kv_cache": "fp8 holds twice the tokens in the same memory."
        if gpu.kv_cache == "fp8"
        else "fp8 needs a GPU that computes in it.",
        "engine.runtime": "pytorch: TensorRT-LLM's LLM API. tensorrt compiles engines instead, "
        "with releases up to 1.2.",
        "engine.kv_cache.free_memory_fraction": "Share of what the weights leave; a desktop "
        "needs some too."
        if gpu.desktop
        else "Share of what the weights leave; lower it if the server runs out of memory.",
        "serving.ready_timeout": "Large weights take minutes to load.",
    }


_REASONS = {
    "name": "Clients call the model by this name.",
    "model.source": "hf://owner/name@revision (pin a commit), a folder, a .gguf file or "
    "sample:NAME.",
    "quantization.calibration.source": "Text like your traffic calibrates best: a .jsonl or .txt "
    "file, or a data set's name.",
    "engine.limits.max_input_len": "Tokens of the longest prompt, and of prompt and answer "
    "together. Longer ones are refused.",
    "engine.parallelism.tensor": "GPUs that share each layer; list as many under serving.gpus.",
    "engine.kv_cache.reuse": "Prompts that begin alike (system prompts, earlier turns) skip what "
    "is cached.",
    "engine.batching.policy": "Admits only what is sure to finish; max_utilization admits more "
    "and pauses requests when the cache is full.",
    "engine.batching.chunked_prefill": "Long prompts are split over steps, so that answers that "
    "are being written do not stall.",
    "serving.host": "0.0.0.0 opens the server to the network; it has no log-in of its own.",
    "serving.ports": "0 picks a free port.",
    "serving.drain_timeout": "Time for requests to end when the server stops.",
    "scheduling.classes.interactive": "Latency targets by class of request, in milliseconds: set "
    "your own. The first class is the default.",
}
_LATENCY = {
    "engine.limits.max_batch_size": "Requests in flight: few, so that each step is short.",
    "engine.limits.max_num_tokens": "Tokens of all requests in one step: a small step delays "
    "other answers less while a long prompt is read.",
    "engine.batching.max_queue_size": "A longer queue only adds waiting: more are refused, to "
    "be retried.",
    "engine.batching.stream_interval": "Every token is streamed as it comes.",
}
_THROUGHPUT = {
    "engine.limits.max_batch_size": "Requests in flight: many share the weights that each step "
    "reads.",
    "engine.limits.max_num_tokens": "Tokens of all requests in one step: large steps read "
    "prompts faster.",
    "engine.batching.max_queue_size": "A long queue keeps the batch full.",
    "engine.batching.stream_interval": "Streams every fourth step: fewer responses to send.",
}
_CPU = {
    "quantization.weights": "The file's own format. The CPU runtime takes fp8, int4_awq and "
    "int8_sq too: that tries a GPU's numbers without the GPU.",
    "engine.runtime": "openvino: any x86 machine.",
    "engine.limits.max_input_len": "Tokens of the longest prompt, and of prompt and answer "
    "together. The cache is as large as these limits need.",
}
_SPECULATION = (
    "Speculative decoding proposes tokens cheaply and verifies several in one step. n-gram "
    "needs no second model and helps where answers repeat the prompt. To try it:"
)


def _fields(preset: Preset) -> Iterator[str]:
    """The file's lines: a comment where there is a reason, sections opened as they begin."""
    opened: tuple[str, ...] = ()
    for field, value in preset.values.items():
        *sections, key = field.split(".")
        shared = 0
        while sections[: shared + 1] == list(opened[: shared + 1]) and shared < len(sections):
            shared += 1
        if opened[:1] == ("engine",) and sections[:1] != ["engine"]:
            yield from _speculation()
        if shared == 0:
            yield ""
        for depth in range(shared, len(sections)):
            yield f"{'  ' * depth}{sections[depth]}:"
        opened = tuple(sections)
        yield from _comment(preset.reasons.get(field, ""), len(sections))
        yield f"{'  ' * len(sections)}{key}: {scalar(value)}"


def _speculation() -> Iterator[str]:
    yield from _comment(_SPECULATION, 1)
    yield "  # speculation: {method: ngram, max_draft_len: 5}"


def _comment(text: str, depth: int) -> list[str]:
    indent = "  " * depth + "# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _as_overrides(values: Mapping[str, Json]) -> Iterator[Override]:
    """The values as if given by flags, so that a mistake is told by the flag that caused it."""
    flags = {"name": "--name", "model.source": "--model"}
    for field, value in values.items():
        label = flags.get(field, f"the preset's {field}")
        node = parse_value(json.dumps(value, ensure_ascii=False), label)
        yield Override(tuple(field.split(".")), node, Place(label))
