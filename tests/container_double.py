"""A docker that a test controls: a client on PATH, a daemon in the test, real processes in it.

As with the real one, a container is no child of its client: it outlives a client that is killed,
gets only the environment that its command line names, and reaches only what is mounted and
published. The image's tritonserver is the CPU server of the wheel.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.serving import container_run, install, preflight

IMAGE = "example/triton:1"

CLIENT = """\
#!{python} -IS
import json, os, signal, socket, sys
link = socket.socket(socket.AF_UNIX)
try:
    link.connect({address!r})
except OSError:
    sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
hello = dict(words=sys.argv[1:], env=dict(os.environ))
link.sendall(json.dumps(hello).encode() + b"\\n")
signal.signal(signal.SIGTERM, lambda *_: link.sendall(b"term\\n"))
for line in link.makefile("r"):
    told = json.loads(line)
    if "exit" in told:
        sys.exit(told["exit"])
    stream = sys.stderr if told.get("error") else sys.stdout
    stream.write(told["text"])
    stream.flush()
sys.exit("the daemon went away")
"""

SWITCHES = {"--rm", "--init"}
VALUES = {
    *("--pull", "--user", "--userns", "--cap-drop", "--security-opt", "--shm-size", "--ulimit"),
    *("--gpus", "--mount", "--env", "--name", "--label", "--restart", "--stop-timeout"),
    *("--log-driver", "--network", "--publish", "--entrypoint", "--workdir"),
}


@dataclass
class Run:
    """One ``docker run``, taken apart."""

    flags: list[tuple[str, str]]
    image: str
    command: list[str]

    def all(self, flag: str) -> list[str]:
        return [value for name, value in self.flags if name == flag]

    @property
    def mounts(self) -> list[dict[str, str]]:
        return [
            dict(part.partition("=")[::2] for part in value.split(","))
            for value in self.all("--mount")
        ]

    def translated(self) -> list[str]:
        """The command with paths of the container put back to where they are mounted from."""
        places = {mount["target"]: mount["source"] for mount in self.mounts}
        words = []
        for word in self.command:
            for target in sorted(places, key=len, reverse=True):
                if word == target or word.startswith(f"{target}/"):
                    word = places[target] + word[len(target) :]
                    break
            words.append(word)
        return words


def take_apart(words: list[str]) -> Run:
    """Flags, image and command of the words after ``run``."""
    flags: list[tuple[str, str]] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        if flag in SWITCHES:
            flags.append((flag, ""))
        elif flag in VALUES:
            flags.append((flag, rest.pop(0)))
        else:
            raise ValueError(f"unknown flag: {flag}")
    return Run(flags, rest[0], rest[1:])


@dataclass
class FakeDocker:
    """The daemon: what it was asked, what it has, what runs in it."""

    directory: Path
    triton: install.ServerBinary
    images: dict[str, str] = field(default_factory=lambda: {IMAGE: "sha256:" + "a" * 64})
    registry: dict[str, str] = field(default_factory=dict)
    inside: str | None = None
    lacking: tuple[str, ...] = ()
    greeting: str = ""
    asked: list[list[str]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    environments: list[dict[str, str]] = field(default_factory=list)
    containers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        address = str(self.directory / "d.sock")
        client = self.directory / "docker"
        client.write_text(CLIENT.format(python=sys.executable, address=address))
        client.chmod(0o755)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for name in list(self.containers):
            self.remove(name)

    def remove(self, name: str) -> None:
        process = self.containers.pop(name, None)
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        lines = link.makefile("rb")
        hello = json.loads(lines.readline())
        self.asked.append(hello["words"])
        say = _Speaker(link)
        try:
            code = self._do(hello["words"], hello["env"], lines, say)
        except ValueError as error:
            say.text(f"{error}\n", error=True)
            code = 125
        say.send({"exit": code})
        link.close()

    def _do(self, words: list[str], env: dict[str, str], lines: Any, say: _Speaker) -> int:
        if words[0] == "run":
            return self._run(take_apart(words[1:]), env, lines, say)
        if words[0] == "info":
            say.text('{"SecurityOptions": ["name=seccomp,profile=builtin"]}\n')
        elif words[:2] == ["image", "inspect"]:
            found = self.images.get(words[-1])
            say.text(f"{found}\n" if found else "No such image\n", error=not found)
            return 0 if found else 1
        elif words[0] == "pull":
            if words[-1] not in self.registry:
                say.text("manifest unknown\n", error=True)
                return 1
            self.images[words[-1]] = self.registry[words[-1]]
        elif words[0] == "inspect":
            process = self.containers.get(words[-1])
            say.text(f"{process.pid if process else ''}\n")
        elif words[0] == "rm":
            self.remove(words[-1])
        else:
            raise ValueError(f"unknown command: {words[0]}")
        return 0

    def _run(self, run: Run, env: dict[str, str], lines: Any, say: _Speaker) -> int:
        if run.image not in self.images.values():
            raise ValueError(f"No such image: {run.image}")
        if run.all("--entrypoint") == ["python3"]:
            return self._python(run, say)
        (name,) = run.all("--name")
        if name in self.containers:
            raise ValueError(f"the container name {name} is already in use")
        self.runs.append(run)
        inside = self._environment(run, env)
        self.environments.append(inside)
        process = subprocess.Popen(
            self._command(run),
            env=inside,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if run.command[0] == "python3" else subprocess.STDOUT,
            start_new_session=True,
        )
        self.containers[name] = process
        threading.Thread(target=_pass_signals, args=(lines, process), daemon=True).start()
        say.text(self.greeting)
        assert process.stdout is not None
        for line in process.stdout:
            say.text(line)
        code = process.wait()
        self.remove(name)
        return code if code >= 0 else 128 - code

    def _python(self, run: Run, say: _Speaker) -> int:
        """A question to the image's Python: which TensorRT-LLM, or a script that is mounted."""
        if run.command[0] == "-c":
            say.text(f"{self.inside}\n")
            return 0 if self.inside else 1
        done = subprocess.run(
            [sys.executable, *run.translated()], capture_output=True, text=True, check=False
        )
        answer = json.loads(done.stdout)
        answer["missing"] = [*answer["missing"], *self.lacking]
        say.text(f"{json.dumps(answer)}\n")
        return done.returncode

    def _environment(self, run: Run, env: dict[str, str]) -> dict[str, str]:
        python = Path(sys.executable).parent
        inside = {
            "PATH": f"{python}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": preflight.library_path(),
            **{key: value for key, value in os.environ.items() if key.startswith("WORDS_")},
        }
        for entry in run.all("--env"):
            key, given, value = entry.partition("=")
            if given or key in env:
                inside[key] = value if given else env[key]
        return inside

    def _command(self, run: Run) -> list[str]:
        visible = [Path(mount["target"]) for mount in run.mounts]
        published = {value.rpartition(":")[2] for value in run.all("--publish")}
        command = []
        for word in run.command:
            flag, _, value = word.partition("=")
            if flag == "--model-repository" and not any(
                Path(value).is_relative_to(each) for each in visible
            ):
                raise ValueError(f"{value} is not mounted")
            if flag.endswith("-port") and value not in published:
                raise ValueError(f"port {value} is not published")
            command.append(word.replace(container_run.ANYWHERE, "127.0.0.1"))
        if run.command[0] == "python3":
            return [sys.executable, *run.translated()[1:]]
        translated = {
            str(container_run.TRITON): str(self.triton.executable),
            f"--backend-directory={container_run.BACKENDS}": "--backend-directory="
            f"{self.triton.backends}",
        }
        return [translated.get(word, word) for word in command]


class _Speaker:
    """Tells one client; a client that is gone hears nothing."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def text(self, text: str, *, error: bool = False) -> None:
        self.send({"text": text, "error": error})

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._link.sendall(json.dumps(message).encode() + b"\n")


def _pass_signals(lines: Any, process: subprocess.Popen[str]) -> None:
    for _ in lines:
        process.terminate()


@contextlib.contextmanager
def fake_docker(directory: Path, triton: install.ServerBinary) -> Iterator[FakeDocker]:
    """A daemon that ends with the block, with everything that runs in it."""
    directory.mkdir(parents=True)
    daemon = FakeDocker(directory, triton)
    try:
        yield daemon
    finally:
        daemon.close()
