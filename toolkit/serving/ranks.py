"""How one server is spread over processes: alone, under mpirun, or spawning its own workers.

Follows ``triton_backend/scripts/launch_triton_server.py`` of NVIDIA/TensorRT-LLM (read at
0a2e2c1f) and ``docs/llmapi.md``, ``docs/llama_multi_instance.md`` of tensorrtllm_backend:

- leader: one tritonserver a GPU under one mpirun; rank 0 serves, the others load nothing but the
  engine's models and never open their ports;
- orchestrator: one tritonserver that spawns a worker for each GPU of each model; upstream's way
  to several models or several instances over more than one GPU;
- alone: a plain process. The LLM API starts its own workers on one node, and upstream's
  documentation requires it (``--no-mpi``) for several instances;
- llmapi: every rank under ``trtllm-llmapi-launch``; for nodes whose ranks a job scheduler starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from toolkit.spec.models import Deployment, DraftModel, Runtime

Mode = Literal["alone", "leader", "orchestrator", "llmapi"]

ENGINE_MODEL = "tensorrt_llm"
DRAFT_MODEL = "tensorrt_llm_draft"
LLMAPI_LAUNCH = "trtllm-llmapi-launch"
_SHM = "--backend-config=python,shm-region-prefix-name="
_CONTROL = "--model-control-mode="


class Ranks(BaseModel):
    """The processes of one server.

    Attributes:
        mode: See the module.
        world_size: Processes that mpirun starts; 1 in the modes ``alone`` and ``orchestrator``.
        models: Triton models of the engine, the only ones that ranks above 0 load.
        gpus: How many GPUs the server sees.
        drain_seconds: Time that requests get to end when mpirun is told to.
    """

    model_config = ConfigDict(frozen=True)

    mode: Mode = "alone"
    world_size: int = 1
    models: tuple[str, ...] = (ENGINE_MODEL,)
    gpus: int = 1
    drain_seconds: float = 0.0

    @property
    def uses_mpirun(self) -> bool:
        """Whether the command line begins with mpirun."""
        return self.mode != "alone"


def ranks_of(deployment: Deployment, runtime: Runtime) -> Ranks:
    """The processes that ``deployment`` needs on one node; ``runtime`` is the resolved one."""
    parallelism, serving = deployment.engine.parallelism, deployment.serving
    world = parallelism.tensor * parallelism.pipeline
    drafting = isinstance(deployment.engine.speculation, DraftModel)
    models = (ENGINE_MODEL, DRAFT_MODEL) if drafting else (ENGINE_MODEL,)
    mode: Mode = "alone"
    if runtime == "tensorrt" and (serving.replicas > 1 or (drafting and world > 1)):
        mode = "orchestrator"
    elif runtime == "tensorrt" and world > 1:
        mode = "leader"
    return Ranks(
        mode=mode,
        world_size=world if mode == "leader" else 1,
        models=models,
        gpus=world * serving.replicas,
        drain_seconds=serving.drain_timeout,
    )


def spread(ranks: Ranks, server: Sequence[str], *, mpirun: str = "mpirun") -> list[str]:
    """The command line that starts every rank; ``server`` is that of a single one."""
    if ranks.mode == "alone":
        return list(server)
    # mpirun refuses root without the flag and ignores it for everybody else.
    command = [mpirun, "--allow-run-as-root"]
    if ranks.mode == "llmapi":
        command.append("--oversubscribe")
    for rank in range(ranks.world_size):
        command += ["-n", "1", *_rank(ranks, server, rank), ":"]
    return command


def _rank(ranks: Ranks, server: Sequence[str], rank: int) -> list[str]:
    words = [_of_rank(word, rank) for word in server]
    if ranks.mode == "llmapi":
        # Ranks above 0 become workers of the launcher; their server never starts.
        return [LLMAPI_LAUNCH, *words]
    if ranks.mode == "orchestrator":
        # The parent must not hold memory on the GPUs of the workers that it spawns.
        pools = [f"--cuda-memory-pool-byte-size={gpu}:0" for gpu in range(ranks.gpus)]
        kept = [word for word in words if not word.startswith("--pinned-memory-pool-byte-size=")]
        return [*kept, "--pinned-memory-pool-byte-size=0", "--enable-peer-access=false", *pools]
    if rank == 0:
        return words
    loaded = [f"--load-model={name}" for name in ranks.models]
    rest = [word for word in words if not word.startswith(_CONTROL)]
    return [*rest, f"{_CONTROL}explicit", *loaded]


def _of_rank(word: str, rank: int) -> str:
    """Python models of two ranks must not meet in one shared memory region."""
    return f"{word}{rank}_" if word.startswith(_SHM) else word


def variables(ranks: Ranks, *, contained: bool) -> dict[str, str]:
    """Environment variables that the mode needs; ``contained`` is inside a container."""
    found: dict[str, str] = {}
    if ranks.mode == "orchestrator":
        found = {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1"}
    if ranks.uses_mpirun:
        # Told to end, Open MPI waits this long, sends SIGTERM, waits once more and kills
        # (open-mpi/ompi pull 7033): both waits together are the time to drain.
        seconds = max(1, math.ceil(ranks.drain_seconds / 2))
        found["OMPI_MCA_odls_base_sigkill_timeout"] = str(seconds)
    if contained and ranks.gpus > 1:
        # Without CAP_SYS_PTRACE reading another rank's memory is refused (ompi issue 4948).
        found["OMPI_MCA_btl_vader_single_copy_mechanism"] = "none"
    return found
