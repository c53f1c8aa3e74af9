"""Tritons of one deployment, started for a benchmark and ended with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.pipeline import build
from toolkit.pipeline.beside import tokenizer_of
from toolkit.progress import Silent
from toolkit.serving.deploy import prepare, start
from toolkit.spec.loading import load
from toolkit.workspace import Workspace, default_root

_FREE = [f"serving.ports.{name}=0" for name in ("http", "grpc", "metrics")]


@dataclass(frozen=True)
class Tritons:
    """The deployment's name, its tokenizer, and ``host:port/port`` of each server."""

    name: str
    tokenizer: Path
    addresses: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """What tells ``toolkit gateway`` of them."""
        replicas = [word for each in self.addresses for word in ("--replica", each)]
        return [*replicas, "--tokenizer", str(self.tokenizer)]


@contextmanager
def tritons(
    file: Path, count: int, workspace: Path | None = None, settings: Sequence[str] = ()
) -> Iterator[Tritons]:
    """So many servers of ``file`` on free ports, with the overrides ``settings``."""
    deployment = load(file, overrides=[*_FREE, *settings]).deployment
    built = build(deployment, Workspace(workspace or default_root(file)), progress=Silent())
    plan = prepare(deployment, built.repository, runtime=built.runtime, progress=Silent())
    with ExitStack() as stack:
        ends = []
        for _ in range(count):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = stack.enter_context(start(plan, folder, progress=Silent(), tied=True))
            ends.append(server.endpoints)
        yield Tritons(
            deployment.name,
            tokenizer_of(built.repository),
            tuple(f"{each.grpc_url}/{each.metrics}" for each in ends),
        )
