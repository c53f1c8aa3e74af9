"""The gateway that a deployment's server is launched with."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from toolkit.errors import SpecError
from toolkit.gateway.plan import PLAN, GatewayPlan, join, plan_model
from toolkit.serving.companion import CompanionPlan
from toolkit.serving.dry_run import FREE, START, DryRun, Step
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.state import RunDirectory
from toolkit.spec.gateway import Gateway
from toolkit.spec.models import Deployment


def with_gateway(plan: LaunchPlan, deployment: Deployment, state_dir: Path) -> LaunchPlan:
    """``plan`` with a gateway beside the server, unless the deployment does without.

    What the gateway serves holds no secret. It is part of the plan, and goes into the run directory
    when the gateway starts: a launch that is refused must change nothing for the one that runs.

    Raises:
        SpecError: the key file cannot be read.
    """
    gateway = deployment.gateway
    if not gateway.enabled:
        return plan
    check_files(gateway)
    whole = join([plan_model(deployment, tokenizer_of(plan.repository))], gateway)
    path = RunDirectory(state_dir, plan.name).path.absolute() / PLAN
    return plan.model_copy(update={"companion": _companion(gateway, whole, path)})


def foreseen(run: DryRun, deployment: Deployment, state_dir: Path) -> DryRun:
    """``run`` with what :func:`with_gateway` would add to the launch."""
    gateway, serving = deployment.gateway, deployment.serving
    if not gateway.enabled:
        return run
    path = RunDirectory(state_dir, deployment.name).path.absolute() / PLAN
    ports = (gateway.port, serving.ports.grpc, serving.ports.metrics)
    port, grpc, metrics = (str(each) if each else FREE for each in ports)
    words = ("--port", port, "--replica", f"{serving.host}:{grpc}/{metrics}")
    step = Step("once it is ready, start the gateway", (*_command(path), *words))
    files = {**run.files, str(path): "what the gateway serves"}
    after = 1 + next(n for n, each in enumerate(run.steps) if each.why == START)
    return replace(run, steps=(*run.steps[:after], step, *run.steps[after:]), files=files)


def tokenizer_of(repository: Path) -> Path:
    """The folder with a repository's tokenizer and chat template.

    Raises:
        SpecError: it has none.
    """
    found = next(iter(sorted(repository.rglob("tokenizer.json"))), None)
    if found is None:
        raise SpecError(
            "there is no tokenizer.json",
            where=str(repository),
            hint="toolkit build renders one into the repository; or name a folder: --tokenizer",
        )
    return found.parent


def check_files(gateway: Gateway) -> None:
    """Refuse files that the gateway could not read, before anything is started.

    Raises:
        SpecError: one is missing or malformed.
    """
    from toolkit.gateway.guard.keys import read

    if gateway.keys:
        read(Path(gateway.keys))
    for field in ("certificate", "key") if gateway.tls else ():
        path = Path(getattr(gateway.tls, field))
        if not path.is_file():
            raise SpecError(f"there is no file {path}", where=f"gateway.tls.{field}")


def _companion(gateway: Gateway, whole: GatewayPlan, path: Path) -> CompanionPlan:
    return CompanionPlan(
        name="gateway",
        command=_command(path),
        file=path,
        content=whole.model_dump_json(indent=1),
        host=gateway.host,
        port=gateway.port,
        field="gateway.port",
        scheme="https" if gateway.tls else "http",
        drain_timeout=gateway.drain_timeout,
        health="/health",
    )


def _command(plan: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "toolkit.gateway", str(plan))
