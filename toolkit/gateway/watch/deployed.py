"""The targets that the deployments of a workspace are: their gateways, their Tritons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from toolkit.gateway.plan import PLAN, GatewayPlan
from toolkit.gateway.watch.reading import Target
from toolkit.gateway.watch.scrape import target_at
from toolkit.serving.state import ENDED, RunDirectory, RunState, run_directories


def deployed(root: Path, names: Sequence[str] = ()) -> tuple[Target, ...]:
    """What to look at now: everything that runs, or the deployments called ``names``.

    Those that are named are there even if they have ended, as long as it is known where they were.
    """
    found: dict[str, Target] = {}
    for directory in run_directories(root):
        state = directory.read()
        if state is None or (directory.name not in names if names else not state.runs):
            continue
        for target in _targets(directory, state):
            found.setdefault(target.url, target)
    return tuple(found.values())


def _targets(directory: RunDirectory, state: RunState) -> Iterator[Target]:
    dead = state.status not in ENDED and not state.alive
    status = "dead" if dead else state.status
    name, restarts = state.name, len(state.restarts)
    if state.companion_url:
        # On this machine, as the state says: a certificate is made for another name than that.
        url = f"{state.companion_url}/metrics"
        yield Target(name, url, status=status, verify=False)
    if state.metrics_port:
        ends = state.endpoints
        yield Target(name, ends.metrics_url, ends.grpc_url, name, status, restarts)
    for model, address in _further(directory):
        at = target_at(address)
        yield Target(name, at.url, at.replica, model)


def _further(directory: RunDirectory) -> Iterator[tuple[str, str]]:
    """Model and address of the replicas elsewhere whose metrics the gateway knows."""
    try:
        plan = GatewayPlan.model_validate_json((directory.path / PLAN).read_bytes())
    except (OSError, ValueError):
        return
    for model in plan.models:
        for address in model.addresses:
            if "/" in address:
                yield model.name, address
