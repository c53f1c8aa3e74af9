"""Command lines of several ranks, word by word against upstream's own launcher.

``UPSTREAM`` restates ``get_cmd`` of triton_backend/scripts/launch_triton_server.py (NVIDIA/
TensorRT-LLM at 0a2e2c1f); llama_multi_instance.md and llmapi.md of tensorrtllm_backend (0b9d7d5)
and examples/draft_target_model/README.md say when it is called how.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from toolkit.serving import launch, ranks
from toolkit.serving.install import ServerBinary
from toolkit.serving.ports import Endpoints
from toolkit.spec.models import Deployment, Runtime

SERVER = "/opt/tritonserver/bin/tritonserver"
DRAFT = {"method": "draft_model", "draft": {"source": "./d"}, "max_draft_len": 4}
OURS = (
    "--id", "--backend-directory", "--exit-on-error", "--strict-readiness", "--exit-timeout-secs",
    "--http-address", "--grpc-address", "--metrics-address", "--http-restricted-api",
    "--grpc-restricted-protocol", "--grpc-infer-allocation-pool-size", "--log-format",
    "--model-control-mode=none",
)  # fmt: skip
"""What the toolkit says beyond upstream: names, endings, addresses, guarded endpoints, and what is
Triton's default anyway."""


@dataclass(frozen=True)
class Upstream:
    """A call of upstream's script: its options, and how many GPUs the machine has."""

    world_size: int = 1
    models: tuple[str, ...] = ("tensorrt_llm",)
    multi_model: bool = False
    no_mpi: bool = False
    gpus: int = 1

    def rank(self, number: int) -> set[str]:
        """The words of one rank, without the program."""
        words = {"--model-repository=/r", "--grpc-port=2", "--http-port=1", "--metrics-port=3"}
        words |= {"--disable-auto-complete-config"}
        words |= {f"--backend-config=python,shm-region-prefix-name=p_{self.suffix(number)}"}
        if number:
            words |= {"--model-control-mode=explicit"}
            words |= {f"--load-model={name}" for name in self.models}
        if self.multi_model:
            words |= {"--pinned-memory-pool-byte-size=0", "--enable-peer-access=false"}
            words |= {f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(self.gpus)}
        return words

    def suffix(self, number: int) -> str:
        """Upstream names every rank's region; a server that is alone has no other to meet."""
        return "" if self.no_mpi else f"{number}_"

    @property
    def environment(self) -> dict[str, str]:
        """What the script adds."""
        if not self.multi_model:
            return {}
        return {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"}


CASES: dict[str, tuple[Runtime, dict[str, Any], dict[str, Any], Upstream]] = {
    "one GPU": ("tensorrt", {}, {}, Upstream(no_mpi=True)),
    "a draft model on one GPU": ("tensorrt", {"speculation": DRAFT}, {}, Upstream(no_mpi=True)),
    "leader over two GPUs": (
        "tensorrt", {"parallelism": {"tensor": 2}}, {"gpus": [0, 1]}, Upstream(2),
    ),
    "leader over stages": (
        "tensorrt",
        {"parallelism": {"tensor": 2, "pipeline": 2}},
        {"gpus": [4, 5, 6, 7]},
        Upstream(4),
    ),
    "two replicas of two GPUs": (
        "tensorrt",
        {"parallelism": {"tensor": 2}},
        {"gpus": [0, 1, 2, 3], "replicas": 2},
        Upstream(multi_model=True, gpus=4),
    ),
    "two replicas of one GPU": (
        "tensorrt", {}, {"gpus": [0, 1], "replicas": 2}, Upstream(multi_model=True, gpus=2),
    ),
    "a draft model over two GPUs": (
        "tensorrt",
        {"parallelism": {"tensor": 2}, "speculation": DRAFT},
        {"gpus": [0, 1]},
        Upstream(models=("tensorrt_llm", "tensorrt_llm_draft"), multi_model=True, gpus=2),
    ),
    "the LLM API over two GPUs": (
        "pytorch", {"parallelism": {"tensor": 2}}, {"gpus": [0, 1]}, Upstream(no_mpi=True),
    ),
    "two replicas of the LLM API": (
        "pytorch", {}, {"gpus": [0, 1], "replicas": 2}, Upstream(no_mpi=True),
    ),
}  # fmt: skip


def command(made: Deployment, runtime: Runtime) -> tuple[list[str], dict[str, str]]:
    binary = ServerBinary(Path(SERVER), Path("/opt/tritonserver/backends"), "container")
    found = ranks.ranks_of(made, runtime)
    plan = launch.plan(made, Path("/r"), "d", binary, uses_gpu=True, ranks=found)
    words = launch.command_line(
        plan, Path("/r"), Endpoints("h", 1, 2, 3), admin_key="k", shm_prefix="p_"
    )
    return words, ranks.variables(found, contained=False)


def by_rank(words: list[str]) -> list[list[str]]:
    """The commands between mpirun's colons; upstream ends the last one with a colon too."""
    assert words[-1] == ":"
    found: list[list[str]] = [[]]
    for word in words[:-1]:
        found[-1].append(word) if word != ":" else found.append([])
    return found


@pytest.mark.parametrize(("runtime", "engine", "serving", "upstream"), CASES.values(), ids=CASES)
def test_every_rank_gets_upstream_s_words(
    runtime: Runtime, engine: dict[str, Any], serving: dict[str, Any], upstream: Upstream
) -> None:
    made = Deployment.model_validate(
        {
            "name": "chat",
            "model": {"source": "./m"},
            "engine": {"runtime": runtime, **engine},
            "serving": serving,
        }
    )
    words, environment = command(made, runtime)
    if upstream.no_mpi:
        started = [words]
    else:
        assert words[:2] == ["mpirun", "--allow-run-as-root"]
        started = by_rank(words[2:])
        assert all(one[:2] == ["-n", "1"] for one in started)
        started = [one[2:] for one in started]
    assert len(started) == upstream.world_size
    for number, (program, *told) in enumerate(started):
        assert program == SERVER
        assert len(told) == len(set(told))
        assert upstream.rank(number) <= set(told)
        more = set(told) - upstream.rank(number)
        assert {word for word in more if not word.startswith(OURS)} == set()
    own = {key: value for key, value in environment.items() if key.startswith("TRTLLM")}
    assert own == upstream.environment
