"""Name what went wrong from the words in the server's log.

The table is data: a pattern, what it means, what mends it, and where the pattern was seen.
More telling patterns stand first, because one failure leaves several lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["memory", "port", "environment", "engine", "model", "repository"]


@dataclass(frozen=True)
class Pattern:
    """One known failure. ``hangs``: the server does not end by itself after this line."""

    name: str
    kind: Kind
    regex: str
    message: str
    hint: str
    source: str
    hangs: bool = False


_MEASURED = "observed on tritonserver 2.51.0"
_BACKEND = "github.com/triton-inference-server/tensorrtllm_backend/issues/"
_TRTLLM = "github.com/NVIDIA/TensorRT-LLM/issues/"

PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "port-taken",
        "port",
        r"failed to start \w+ service: .*(?:already in use|bind)|Failed to bind|"
        r"Socket '[^']*' already in use",
        "a port of the server was taken by another process",
        "stop that process or choose another port under serving.ports (0 takes any free one)",
        _MEASURED,
    ),
    Pattern(
        "published-port-taken",
        "port",
        r"port is already allocated|failed to bind host port|ports are not available",
        "a port of the server was taken by another process",
        "stop that process or choose another port under serving.ports (0 takes any free one)",
        "docker and podman run",
    ),
    Pattern(
        "container-without-gpus",
        "environment",
        r"could not select device driver|unresolvable CDI devices|unknown or invalid runtime name: "
        r"nvidia|nvidia-container-cli: initialization error",
        "the container engine cannot hand GPUs to a container",
        "install the NVIDIA Container Toolkit, then: nvidia-ctk runtime configure "
        "--runtime=docker && systemctl restart docker (podman: nvidia-ctk cdi generate "
        "--output=/etc/cdi/nvidia.yaml); toolkit doctor tells what is missing",
        "docs.docker.com/engine/containers/gpu; NVIDIA Container Toolkit, troubleshooting",
    ),
    Pattern(
        "container-gpu-unknown",
        "environment",
        r"nvidia-container-cli: device error: (?P<what>\S+): unknown device",
        "serving.gpus names a GPU that this machine does not have ({what})",
        "nvidia-smi -L lists those that are there",
        "NVIDIA Container Toolkit, libnvidia-container",
    ),
    Pattern(
        "driver-too-old",
        "environment",
        # Triton says the same of its own pools on every machine without a GPU, and goes on.
        r"^(?!.*(?:pinned_memory_manager|ensemble_scheduler)\.cc).*"
        r"CUDA driver version is insufficient for CUDA runtime version|"
        r"nvidia-container-cli: requirement error: unsatisfied condition: (?P<what>[^,]+)",
        "the NVIDIA driver is older than the container needs ({what})",
        "toolkit doctor FILE names the driver that the release needs; or set engine.release to "
        "an older one",
        "CUDA error 35; NVIDIA Container Toolkit, constraints",
    ),
    Pattern(
        "missing-libpython",
        "environment",
        r"triton_python_backend_stub: error while loading shared libraries: (?P<what>\S+?):",
        "the python backend lacks the shared library {what}",
        "Debian, Ubuntu: apt-get install libpython3.x of the environment's version",
        _MEASURED,
        hangs=True,
    ),
    Pattern(
        "missing-module",
        "environment",
        r"ModuleNotFoundError: No module named '(?P<what>[^']+)'",
        "a python model needs the module {what}, which the server's environment lacks",
        "install it into the environment that runs the toolkit: its bin directory is first on "
        "the server's PATH",
        _MEASURED,
    ),
    Pattern(
        "engine-version",
        "engine",
        r"Serialization assertion .*[Vv]ersion tag does not match"
        r"(?:.*?(?P<what>Current Version: \d+, Serialized Engine Version: \d+))?",
        "the engine was built with another TensorRT than the server has ({what})",
        "rebuild with engine.release set to the release of the serving container, or serve with "
        "the container of the release that built it",
        f"{_BACKEND}531, 190, 235, 299; {_TRTLLM}660",
    ),
    Pattern(
        "engine-library",
        "engine",
        r"(?P<what>expect(?:ed|ing) library version \S+ got \S+|library version mismatch.*)",
        "the engine was built with another patch release of TensorRT: {what}",
        "rebuild with engine.release set to the release of the serving container",
        f"{_BACKEND}194",
    ),
    Pattern(
        "kv-pool-too-small",
        "engine",
        r"maxTokensInPagedKvCache.* must be large enough to process at least 1 sequence",
        "the KV cache pool cannot hold one sequence of max_seq_len",
        "raise engine.kv_cache.free_memory_fraction or .size, or lower engine.limits.max_seq_len",
        f"{_BACKEND}168; {_TRTLLM}494, 542",
    ),
    Pattern(
        "reuse-without-paged-fmha",
        "engine",
        r"KV cache block reuse is set, model has to be built with paged context FMHA",
        "KV cache reuse needs an engine built with paged context FMHA",
        "rebuild with engine.kv_cache.reuse: true, or turn it off",
        f"{_BACKEND}271, 251",
    ),
    Pattern(
        "no-kv-cache",
        "engine",
        r"Failed to find Max KV cache blocks in metrics|KV-cache-less is only supported",
        "the engine was built without a KV cache, in-flight batching needs one",
        "rebuild the engine with this toolkit: it always builds a paged KV cache",
        f"{_BACKEND}645; {_TRTLLM}2443",
    ),
    Pattern(
        "world-size",
        "engine",
        r"mpiSize == tp \* pp|MPI worldSize is expected to be equal to tp\*pp|"
        r"MPI size \d+ != TP size",
        "the number of server processes differs from tensor x pipeline parallelism",
        "let serving.gpus name as many GPUs as engine.parallelism multiplies to",
        f"{_TRTLLM}1047, 1992, 2021, 2058",
    ),
    Pattern(
        "decoupled-off",
        "repository",
        r"(?:[Ss]treaming is only supported in decoupled mode|"
        r"doesn't support models with decoupled transaction policy)",
        "the model answers a request with several responses, which its configuration forbids",
        "render the repository again: toolkit build",
        "tensorrtllm_backend docs/model_config.md",
    ),
    Pattern(
        "memory-gpu",
        "memory",
        r"CUDA (?:error|runtime error).*out of memory|cudaErrorMemoryAllocation|"
        r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory|"
        r"OutOfMemory \((?:no further information|Requested size)",
        "the GPU's memory is too small for the weights, the activations and the KV cache",
        "lower engine.kv_cache.free_memory_fraction, engine.limits.max_batch_size or "
        ".max_num_tokens",
        f"{_TRTLLM}260; {_BACKEND}303, 456, 462",
    ),
    Pattern(
        "memory-host",
        "memory",
        r"std::bad_alloc|^\s*MemoryError|: MemoryError|Cannot allocate memory|"
        r"bad_alloc|Unable to allocate \S+ [KMGT]iB",
        "the machine's memory is too small for the weights and the KV cache",
        "lower engine.kv_cache.size, or engine.limits.max_batch_size and .max_seq_len",
        "C++ and Python runtimes",
    ),
    Pattern(
        "shared-memory",
        "environment",
        r"Failed to (?:increase|initialize|create) the shared memory|"
        r"No space left on device.*shm|unable to create shared memory region",
        "shared memory (/dev/shm) is full",
        "docker: run with --shm-size=1g; else: mount -o remount,size=1g /dev/shm",
        "python_backend src/shm_manager.cc",
    ),
    Pattern(
        "unhealthy-stub",
        "model",
        r"Stub process '(?P<what>[^']+)' is not healthy",
        "the process of a python model ({what}) died",
        "see the lines above; under numpy 2 it dies at the first string tensor: pip install "
        "'numpy<2'",
        _MEASURED,
    ),
    Pattern(
        "aborted",
        "environment",
        r"^terminate called after throwing an instance of '(?P<what>[^']+)'",
        "a process of the server aborted with {what}",
        "see the lines below it in the log",
        _MEASURED,
    ),
    Pattern(
        "stub-timeout",
        "environment",
        r"Timed out occurred while waiting for the stub process",
        "the process of a python model did not start in time",
        "see the lines above; the machine may be overloaded",
        "python_backend src/stub_launcher.cc",
    ),
    Pattern(
        "config-invalid",
        "repository",
        r"Poll failed for model directory '(?P<what>[^']+)'|"
        r"Error parsing text-format inference\.ModelConfig",
        "a model's config.pbtxt is not valid ({what})",
        "render the repository again: toolkit build",
        _MEASURED,
    ),
    Pattern(
        "backend-missing",
        "environment",
        r"unable to find (?:backend library|shared library|'[^']*') .*for (?:backend|model)|"
        r"Unable to find backend library for backend '(?P<what>\w+)'",
        "the server lacks a backend that the repository needs ({what})",
        "serve this runtime with the NGC container of its release",
        "server core src/backend_model.cc",
    ),
    Pattern(
        "model-load",
        "model",
        r"failed to load '(?P<model>[^']+)' version \d+: (?P<what>[^\"]*)",
        "the model {model} did not load: {what}",
        "see the log for the whole message",
        _MEASURED,
    ),
)
_COMPILED = tuple((pattern, re.compile(pattern.regex)) for pattern in PATTERNS)


@dataclass(frozen=True)
class Diagnosis:
    """A known failure found in a log, and the line it was found in."""

    pattern: Pattern
    message: str
    line: str

    @property
    def kind(self) -> Kind:
        """What has to change."""
        return self.pattern.kind


def diagnose(lines: Sequence[str]) -> Diagnosis | None:
    """The most telling known failure in ``lines``; None when nothing is recognised."""
    for pattern, regex in _COMPILED:
        for line in lines:
            match = regex.search(line)
            if match:
                return Diagnosis(pattern, _message(pattern, match), line.strip())
    return None


def hangs(line: bytes) -> bool:
    """Whether ``line`` says that the server will never become ready, though it goes on."""
    text = line.decode(errors="replace")
    return any(pattern.hangs and regex.search(text) for pattern, regex in _COMPILED)


def _message(pattern: Pattern, match: re.Match[str]) -> str:
    # Triton escapes line breaks inside its quoted messages.
    words = {
        name: value.replace("\\n", "\n").strip().splitlines()[0] if value and value.strip() else ""
        for name, value in match.groupdict().items()
    }
    text = pattern.message.format_map({"what": "", "model": ""} | words)
    return text.replace(" ()", "")
