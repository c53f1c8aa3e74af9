"""One slot: a rung's server brought up, measured and stopped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.bench.report import BenchReport
from toolkit.pipeline.ablation.ladder import Rung
from toolkit.pipeline.ablation.method import Method
from toolkit.pipeline.stages import BuiltRuntime
from toolkit.progress import Progress
from toolkit.serving.launch import LaunchPlan

if TYPE_CHECKING:
    from toolkit.bench.endpoint import Protocol
    from toolkit.bench.runner import Options


@dataclass(frozen=True)
class Built:
    """A rung with the repository that it is served from; ``digest`` is that artifact's key."""

    rung: Rung
    repository: Path
    runtime: BuiltRuntime
    digest: str

    @property
    def served(self) -> str:
        """What two slots have to share to be of one server: with the gateway's settings, where
        it is asked, which are not rendered into the repository."""
        if not self.rung.by_gateway:
            return self.digest
        gateway = self.rung.deployment.gateway.model_dump_json()
        return hashlib.sha256(f"{self.digest} {gateway}".encode()).hexdigest()


def measure_rung(
    built: Built, number: int, root: Path, method: Method, *, progress: Progress
) -> BenchReport:
    """Serve ``built`` alone and run the loads once, with the prompts of round ``number``.

    The server ends with this process, whatever becomes of it.

    Raises:
        ServerError: it did not start, or nothing could be measured.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    from toolkit.bench.endpoint import target_at
    from toolkit.bench.runner import run
    from toolkit.serving import deploy

    name = built.rung.deployment.name
    plan = _plan(built, root, progress)
    with deploy.start(plan, root, progress=progress, replace=True, tied=True) as server:
        gateway = built.rung.by_gateway
        url = server.companion_url if gateway else f"grpc://{server.grpc_url}"
        protocol: Protocol = "openai" if gateway else "grpc"
        target = target_at(url, name, protocol, timeout=method.timeout)
        options = _options(built, number, method)
        return run(target, method.workload, method.loads, options, progress=progress)


def _plan(built: Built, root: Path, progress: Progress) -> LaunchPlan:
    from toolkit.pipeline.beside import with_gateway
    from toolkit.serving import deploy

    deployment = built.rung.deployment
    plan = deploy.prepare(
        deployment,
        built.repository,
        runtime=built.runtime,
        progress=progress,
        digest=built.digest,
    )
    return with_gateway(plan, deployment, root)


def _options(built: Built, number: int, method: Method) -> Options:
    from toolkit.bench.chat import chat_format
    from toolkit.bench.runner import Options
    from toolkit.bench.vocabulary import Tokens
    from toolkit.bench.workload import Material
    from toolkit.pipeline.beside import tokenizer_of

    assert method.seed is not None, "drawn before"
    tokenizer = method.tokenizer or tokenizer_of(built.repository)
    return Options(
        stop=method.stop,
        seed=method.seed + number,
        objectives=method.objectives,
        sampling=method.sampling,
        material=Material(Tokens(tokenizer), chat_format(tokenizer)),
        processes=method.processes,
        title=f"{method.title}: {built.rung.title}, round {number + 1}",
    )
