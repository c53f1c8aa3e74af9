"""The servers that are compared, each started as a user would start it, on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from peer_environments import HERE, Environment

from toolkit.bench.endpoint import Deployed, find_deployed
from toolkit.serving import probe
from toolkit.serving.ports import choose_one
from toolkit.serving.state import RunDirectory
from toolkit.spec.loading import load

READY_WITHIN = 900.0
"""Seconds: vLLM compiles the model at its first start."""
MAX_LENGTH = 2048
MOST_AT_ONCE = 32
KV_GIB = 1


@dataclass(frozen=True)
class Peer:
    """One way to ask for completions.

    ``root`` is the process that started all of the server. ``group`` is the process group of a
    server that is stopped (SIGSTOP) while others are measured; None for the toolkit's, which its
    supervisor would take for hung. ``offset`` sets prompts apart from those of another way to
    the same server, whose KV cache holds them.
    """

    name: str
    url: str
    model: str
    protocol: str
    root: int
    group: int | None = None
    users: tuple[int, ...] = (1, 8, 32)
    offset: int = 0

    def pause(self) -> None:
        """Take no processor time."""
        if self.group is not None:
            os.killpg(self.group, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        if self.group is not None:
            os.killpg(self.group, signal.SIGCONT)


def end_on_sigterm() -> None:
    """Leave no server behind when this program is told to end, either."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def toolkit(*words: object) -> str:
    """What a command of the toolkit prints."""
    command = [sys.executable, "-m", "toolkit", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def checkpoint(source: str, workspace: Path) -> Path:
    """The model's files as the toolkit made them: bf16 safetensors, tokenizer, chat template."""
    words = ("checkpoint", "fetch", source, "--workspace", workspace, "--json", "--quiet")
    return Path(json.loads(toolkit(*words))["path"])


@contextmanager
def deployed(file: Path, workspace: Path, *settings: str) -> Iterator[Deployed]:
    """The deployment of ``file`` with its gateway, stopped at the end."""
    place = ("--workspace", workspace, "--quiet")
    overrides = [word for each in settings for word in ("--set", each)]
    print(f"deploying {file.name} ...", file=sys.stderr, flush=True)
    toolkit("deploy", file, "--replace", *overrides, *place)
    name = load(file).deployment.name
    try:
        yield find_deployed(load(file, overrides=settings).deployment, workspace)
    finally:
        toolkit("stop", name, *place)


def ways(found: Deployed, name: str, workspace: Path) -> list[Peer]:
    """A deployment's OpenAI API and its Triton."""
    state = RunDirectory(workspace, name).read()
    assert state is not None, f"{name} does not run"
    root = state.supervisor_pid
    return [
        Peer(f"{name}, gateway", found.url("openai"), name, "openai", root),
        Peer(f"{name}, Triton gRPC", found.url("grpc"), name, "grpc", root, offset=1),
    ]


@contextmanager
def vllm(home: Environment, model: Path, title: str, cores: str, logs: Path) -> Iterator[Peer]:
    """vLLM's OpenAI server with the limits of the toolkit's deployment.

    ``cores`` is its VLLM_CPU_OMP_THREADS_BIND: ``auto`` leaves a core to its other processes
    (so one of two computes), a range takes all. OpenMP is Intel's, preloaded as its
    installation guide asks. https://docs.vllm.ai/en/latest/getting_started/installation/cpu/
    """
    settings = {
        "HF_HUB_OFFLINE": "1",
        "LD_PRELOAD": str(home.folder / "lib" / "libiomp5.so"),
        "VLLM_CACHE_ROOT": str(home.folder / "cache"),
        "VLLM_CPU_KVCACHE_SPACE": str(KV_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_NO_USAGE_STATS": "1",
    }
    # The `vllm` command looks for a package of that name, which this build is not.
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    words += ["--served-model-name", "peer", "--host", "127.0.0.1"]
    words += ["--dtype", "bfloat16", "--max-model-len", str(MAX_LENGTH)]
    words += ["--max-num-seqs", str(MOST_AT_ONCE), "--enable-prompt-tokens-details"]
    with launched(title, [str(home.python), *words], settings, logs) as (port, group):
        yield Peer(title, f"http://127.0.0.1:{port}", "peer", "openai", group, group)


@contextmanager
def transformers(
    home: Environment, model: Path, batch: int, users: Sequence[int], logs: Path
) -> Iterator[Peer]:
    """transformers' ``generate`` in static batches of up to ``batch``."""
    title = f"transformers, static batch of {batch}" if batch > 1 else "transformers, one at a time"
    words = [str(home.python), str(HERE / "transformers_server.py"), "--model", str(model)]
    words += ["--name", "peer", "--batch", str(batch)]
    settings = {"HF_HUB_OFFLINE": "1"}
    with launched(title, words, settings, logs) as (port, group):
        yield Peer(title, f"http://127.0.0.1:{port}", "peer", "openai", group, group, tuple(users))


@contextmanager
def launched(
    title: str, command: list[str], settings: Mapping[str, str], logs: Path
) -> Iterator[tuple[int, int]]:
    """A server in a process group of its own, once it answers; ended with all its children.

    Gives its port, which is appended to the command, and its group.
    """
    port = choose_one("127.0.0.1", 0, "port")
    log = logs / f"{title.replace(' ', '-').replace(',', '')}.log"
    print(f"starting {title} (log: {log}) ...", file=sys.stderr, flush=True)
    environment = {**os.environ, **settings}
    environment.pop("PYTHONPATH", None)
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        _await_ready(process, port, title, log)
        yield port, process.pid
    finally:
        _end(process)


def _await_ready(process: subprocess.Popen[bytes], port: int, title: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while probe.get(f"http://127.0.0.1:{port}/v1/models", 2.0)[0] != 200:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{title} did not become ready: see {log}")
        time.sleep(0.5)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGCONT, signal.SIGTERM):
        _signal(process.pid, number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    # Whatever of its group outlived it, too.
    _signal(process.pid, signal.SIGKILL)
    process.wait(30)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
