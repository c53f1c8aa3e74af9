"""The gateway as people run it: keys, TLS, the access log, an end without broken answers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from toolkit.gateway.guard.keys import KeyLimits, make, write
from toolkit.gateway.plan import join, plan_model
from toolkit.pipeline.beside import tokenizer_of
from toolkit.spec.gateway import Gateway, Tls

if TYPE_CHECKING:
    from toolkit.pipeline import BuildResult
    from toolkit.serving.deploy import RunningServer

pytestmark = pytest.mark.e2e
SECRET = "the colour of the secret door"


class Process:
    """A gateway before the tests' server."""

    def __init__(self, plan: Path, replica: str, port: int) -> None:
        command = [sys.executable, "-m", "toolkit.gateway", str(plan), "--port", str(port)]
        self.output: list[dict[str, Any]] = []
        self.popen = subprocess.Popen(
            [*command, "--replica", replica], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            self.output.append(json.loads(line))

    def end(self) -> int:
        self.popen.terminate()
        code = self.popen.wait(60)
        self._reader.join(5)
        return code


Start = Callable[..., tuple[Process, int]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@pytest.fixture
def start(running_server: RunningServer, fp8_build: BuildResult, tmp_path: Path) -> Iterator[Start]:
    """Starts a gateway with these settings and waits until it is ready."""
    ends = running_server.endpoints
    with ExitStack() as stack:

        def go(**settings: Any) -> tuple[Process, int]:
            model = plan_model(fp8_build.deployment, tokenizer_of(fp8_build.repository))
            path = tmp_path / "gateway.json"
            gateway = Gateway(port=0, **settings)
            path.write_text(join([model], gateway).model_dump_json())
            port = free_port()
            process = Process(path, f"{ends.grpc_url}/{ends.metrics}", port)
            stack.callback(process.popen.kill)
            scheme = "https" if gateway.tls else "http"
            until(lambda: status(f"{scheme}://127.0.0.1:{port}/ready") == 200)
            return process, port

        yield go


def status(url: str) -> int:
    try:
        return httpx.get(url, verify=False, timeout=5).status_code
    except httpx.TransportError:
        return 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def body(tokens: int = 8, **fields: Any) -> dict[str, Any]:
    return {"model": "smollm2", "prompt": SECRET, "max_tokens": tokens, "temperature": 0, **fields}


def post(port: int, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    url = f"http://127.0.0.1:{port}/v1/completions"
    return httpx.post(url, json=body(**fields), headers=headers, timeout=120)


def test_keys_classes_limits_and_a_log_without_text(start: Start, tmp_path: Path) -> None:
    limited = make("limited", limits=KeyLimits(requests_per_minute=1), request_class="batch")
    free = make("free")
    keys = tmp_path / "keys.yaml"
    write(keys, {each.entry.id: each.entry for each in (limited, free)})
    process, port = start(keys=str(keys))

    def bearer(text: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {text}"}

    assert post(port).status_code == 401
    assert post(port, bearer(free.text + "x")).status_code == 401
    assert post(port, bearer(limited.text)).status_code == 200
    refused = post(port, bearer(limited.text))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert post(port, bearer(free.text)).status_code == 200
    assert post(port, {**bearer(free.text), "x-request-class": "batch"}).status_code == 200
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    finished = re.findall(r'requests_total\{.*request_class="(\w+)".*\} (\d)', metrics)
    assert dict(finished) == {"batch": "2", "interactive": "1"}
    assert process.end() == 0
    statuses = [(line["status"], line["caller"]) for line in process.output]
    assert statuses == [
        (401, ""),
        (401, ""),
        (200, "limited"),
        (429, "limited"),
        (200, "free"),
        (200, "free"),
    ]
    whole = json.dumps(process.output)
    assert "secret door" not in whole
    assert free.text not in whole
    assert all(line["completion_tokens"] == 8 for line in process.output if line["status"] == 200)


def test_tls(start: Start, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-out", str(certificate), "-keyout", str(key)]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *files, *name], check=True, capture_output=True)
    _, port = start(tls=Tls(certificate=str(certificate), key=str(key)))
    trusted = ssl.create_default_context(cafile=str(certificate))
    url = f"https://localhost:{port}/v1/completions"
    assert httpx.post(url, json=body(), verify=trusted, timeout=120).status_code == 200
    assert status(f"http://127.0.0.1:{port}/health") == 0


def test_what_runs_ends_well_when_the_gateway_is_told_to_end(start: Start) -> None:
    process, port = start(drain_timeout=60.0)
    url = f"http://127.0.0.1:{port}/v1/completions"
    wanted = body(tokens=48, stream=True, min_tokens=48)
    with httpx.stream("POST", url, json=wanted, timeout=120) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: status(f"http://127.0.0.1:{port}/health") == 0)
        assert "data: [DONE]" in list(lines)
    assert process.popen.wait(60) == 0


def test_what_does_not_end_in_time_is_told_so(start: Start) -> None:
    process, port = start(drain_timeout=0.05)
    url = f"http://127.0.0.1:{port}/v1/completions"
    wanted = body(tokens=1900, stream=True, min_tokens=1900)
    with httpx.stream("POST", url, json=wanted, timeout=120) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.popen.send_signal(signal.SIGTERM)
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "shutting down" in events[-1]["error"]["message"]
    assert process.popen.wait(60) == 0


def test_a_key_file_that_cannot_be_read_is_an_error(fp8_build: BuildResult, tmp_path: Path) -> None:
    model = plan_model(fp8_build.deployment, tokenizer_of(fp8_build.repository), ["127.0.0.1:1"])
    path = tmp_path / "gateway.json"
    path.write_text(join([model], Gateway(keys=str(tmp_path / "none"))).model_dump_json())
    command = [sys.executable, "-m", "toolkit.gateway", str(path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the key file cannot be read" in done.stderr


def test_the_command_serves_what_was_deployed_elsewhere(
    running_server: RunningServer, fp8_build: BuildResult, tmp_path: Path
) -> None:
    from toolkit.spec.writing import to_yaml

    file, port, ends = tmp_path / "deploy.yaml", free_port(), running_server.endpoints
    file.write_text(to_yaml(fp8_build.deployment))
    words = ["--replica", f"{ends.grpc_url}/{ends.metrics}", "--port", str(port)]
    words += ["--tokenizer", str(tokenizer_of(fp8_build.repository))]
    command = [sys.executable, "-m", "toolkit", "gateway", str(file), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ}) as process:
        until(lambda: status(f"http://127.0.0.1:{port}/ready") == 200)
        assert post(port).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)
        assert process.stderr is not None
        assert f"serving smollm2 at http://127.0.0.1:{port}/v1" in process.stderr.read().decode()
