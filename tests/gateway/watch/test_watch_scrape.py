"""Looking at gateways and Tritons over HTTP, whatever they answer."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from exposition import GATEWAY, TRITON, Exposition

from toolkit.errors import SpecError
from toolkit.gateway.watch import between, look
from toolkit.gateway.watch.scrape import target_at
from toolkit.serving.ports import Endpoints


def closed_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def test_all_targets_in_one_look() -> None:
    with Exposition(lambda: GATEWAY) as gateway, Exposition(lambda: TRITON) as triton:
        targets = [target_at(gateway.url), target_at(f"127.0.0.1:46709/{triton.port}")]
        view = between(look(targets), look(targets))
    assert [each.answers for each in view.sources] == [True, True]
    (replica,) = view.replicas  # the gateway's and the Triton's are one: same address
    assert (replica.replica, replica.kv_reserved, replica.kv_use) == ("127.0.0.1:46709", 0, 0)


def test_what_does_not_answer_says_why() -> None:
    nothing = closed_port()
    with (
        Exposition(lambda: "", status=503) as broken,
        Exposition(lambda: "<html>hello</html>") as other,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        silent_port = silent.getsockname()[1]
        targets = [
            target_at(f"127.0.0.1:{port}")
            for port in (nothing, broken.port, other.port, silent_port)
        ]
        sources = look(targets, timeout=0.5).sources
    assert [each.figures for each in sources] == [None] * 4
    refused, unavailable, foreign, late = (each.error for each in sources)
    assert refused == "connection refused"
    assert "503" in unavailable
    assert "no metrics of a gateway or a Triton" in foreign
    assert "no answer" in late


def test_a_triton_without_language_model_answers() -> None:
    with Exposition(lambda: "nv_cpu_utilization 0.5\n") as triton:
        view = between(None, look([target_at(triton.url)]))
    assert view.sources[0].answers
    assert view.classes == view.replicas == ()


@pytest.mark.parametrize(
    ("text", "url", "replica"),
    [
        ("http://gw:9000", "http://gw:9000/metrics", ""),
        ("https://gw", "https://gw/metrics", ""),
        ("gw:9000/", "http://gw:9000/metrics", ""),
        ("http://t:8002/metrics", "http://t:8002/metrics", ""),
        ("http://gw:9000/behind/metrics", "http://gw:9000/behind/metrics", ""),
        ("gpu-2:8001/8012", "http://gpu-2:8012/metrics", "gpu-2:8001"),
        ("[::1]:8001/8002", "http://[::1]:8002/metrics", "[::1]:8001"),
    ],
)
def test_addresses(text: str, url: str, replica: str) -> None:
    target = target_at(text)
    assert (target.url, target.replica) == (url, replica)


@pytest.mark.parametrize("text", ["", "ftp://gw:1", "http://", "gw:notaport", "gw:70000", ":9000"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SpecError, match="not an address"):
        target_at(text)


def test_a_triton_of_this_machine_is_called_what_its_gateway_calls_it() -> None:
    ends = Endpoints("0.0.0.0", 1, 2, 3)
    assert target_at(f"{ends.grpc_url}/{ends.metrics}").url == ends.metrics_url


def test_tls_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    names = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=gw", *names]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with Exposition(lambda: GATEWAY, context=context) as gateway:
        url = gateway.url.replace("http:", "https:")
        (strict,) = look([target_at(url)]).sources
        (trusting,) = look([target_at(url, verify=False)]).sources
    assert "certificate is not trusted" in strict.error
    assert trusting.figures is not None
