"""Known failures are named from the lines that servers really wrote."""

from __future__ import annotations

import pytest

from toolkit.serving.diagnose import PATTERNS, diagnose, hangs

LINES = {
    "port-taken": 'E1124 05:43:48.927360 7789 main.cc:257] "failed to start HTTP service: '
    "Unavailable - Socket '127.0.0.1:18100' already in use \"",
    "missing-libpython": "/x/backends/python/triton_python_backend_stub: error while loading "
    "shared libraries: libpython3.12.so.1.0: cannot open shared object file: No such file",
    "missing-module": "\"failed to load 'm' version 1: Internal: ModuleNotFoundError: No module "
    "named 'openvino'\\n\\nAt:\\n  /m/1/model.py(4): <module>\\n\"",
    "engine-version": "[TensorRT-LLM][ERROR] 1: [stdArchiveReader.cpp::47] Error Code 1: "
    "Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed."
    "Version tag does not match. Note: Current Version: 226, Serialized Engine Version: 228)",
    "kv-pool-too-small": "E1128 16:31:49 227 backend_model.cc:634] ERROR: Failed to create "
    "instance: maxTokensInPagedKvCache must be large enough to process at least 1 sequence to "
    "completion (i.e. must be larger than beam_width * tokensPerBlock * maxBlocksPerSeq)",
    "reuse-without-paged-fmha": "[TensorRT-LLM][ERROR] Assertion failed: When KV cache block "
    "reuse is set, model has to be built with paged context FMHA support (/app/x.cpp:140)",
    "no-kv-cache": 'model_instance_state.cc:1117] "Failed updating TRT LLM statistics: Internal '
    '- Failed to find Max KV cache blocks in metrics."',
    "world-size": "RuntimeError: [TensorRT-LLM][ERROR] Assertion failed: mpiSize == tp * pp "
    "(/app/worldConfig.cpp:99)",
    "memory-gpu": "[TensorRT-LLM][ERROR] CUDA runtime error in ::cudaMallocAsync(ptr, n, s): out "
    "of memory (/app/tllmBuffers.h:117)",
    "memory-host": "terminate called after throwing an instance of 'std::bad_alloc'",
    "unhealthy-stub": "\"Stub process 'tensorrt_llm_0_0' is not healthy.\"",
    "aborted": "terminate called after throwing an instance of 'std::invalid_argument'",
    "model-load": "E1124 8098 model_lifecycle.cc:642] \"failed to load 'words' version 1: "
    'Internal: ValueError: bad weight file\\n\\nAt:\\n  /m/1/model.py(4): <module>\\n"',
}


@pytest.mark.parametrize(("name", "line"), LINES.items(), ids=LINES.keys())
def test_line_is_named(name: str, line: str) -> None:
    found = diagnose(["I1124 server.cc:604] ", line, "I1124 main.cc:1] unrelated"])
    assert found is not None
    assert found.pattern.name == name
    assert found.line == line
    assert "{" not in found.message
    assert found.pattern.hint


def test_message_carries_what_the_log_says() -> None:
    def message(name: str) -> str:
        found = diagnose([LINES[name]])
        assert found is not None
        return found.message

    assert "Current Version: 226, Serialized Engine Version: 228" in message("engine-version")
    assert "openvino" in message("missing-module")
    assert message("model-load") == (
        "the model words did not load: Internal: ValueError: bad weight file"
    )


def test_more_telling_line_wins_whatever_comes_first() -> None:
    found = diagnose([LINES["model-load"], LINES["memory-gpu"]])
    assert found is not None
    assert found.kind == "memory"


@pytest.mark.parametrize(
    "line",
    [
        "I1124 model_lifecycle.cc:839] \"successfully loaded 'words'\"",
        'W1124 pinned_memory_manager.cc:170] "failed to allocate pinned system memory: no pinned '
        'memory pool, falling back to non-pinned system memory"',
        'E1124 server.cc:241] "CudaDriverHelper has not been initialized."',
        'E1124 ensemble_scheduler.cc:1468] "unable to create stream for words: CUDA driver version '
        'is insufficient for CUDA runtime version"',
        'W1124 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned '
        "memory pool will not be available: CUDA driver version is insufficient for CUDA runtime "
        'version"',
    ],
)
def test_ordinary_lines_are_not_failures(line: str) -> None:
    assert diagnose([line]) is None


def test_only_a_missing_libpython_makes_the_server_wait_for_ever() -> None:
    assert hangs(LINES["missing-libpython"].encode())
    assert not any(hangs(line.encode()) for name, line in LINES.items() if "libpython" not in name)


def test_names_are_unique_and_sources_given() -> None:
    assert len({pattern.name for pattern in PATTERNS}) == len(PATTERNS)
    assert all(pattern.source for pattern in PATTERNS)
