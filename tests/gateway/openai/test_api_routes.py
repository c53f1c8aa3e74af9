"""What is at which path, and how everything else is refused."""

from __future__ import annotations

import json
import socket

import httpx
import pytest


@pytest.fixture(scope="module")
def http(target):
    with httpx.Client(base_url=target.url, timeout=60) as http:
        yield http


def test_health_and_readiness_are_told(http):
    for path in ("/health", "/ready"):
        answer = http.get(path)
        assert answer.status_code == 200
        assert answer.json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat", "/v1/completions/", "/v1/models/none"])
def test_what_is_not_there_is_refused_in_openais_shape(http, path):
    answer = http.get(path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("PUT", "/health", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_and_the_right_one_named(http, method, path, allowed):
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_request_id_comes_back(http):
    assert http.get("/health", headers={"x-request-id": "a-1"}).headers["x-request-id"] == "a-1"


@pytest.mark.parametrize("given", [None, "with space", "x" * 200, 'quote"'])
def test_a_request_id_is_made_up_where_there_is_no_good_one(http, given):
    headers = {} if given is None else {"x-request-id": given}
    made = http.get("/v1/nothing", headers=headers).headers["x-request-id"]
    assert made != given
    assert len(made) == 32


def test_a_body_must_say_that_it_is_json(http):
    answer = http.post("/v1/completions", content="{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"


@pytest.mark.parametrize("body", ["", "{", "nonsense", b"\xff\xfe", '"\\ud800"'])
def test_malformed_json_is_a_client_error(http, body):
    headers = {"content-type": "application/json"}
    answer = http.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in ("invalid_json", "invalid_value")


@pytest.mark.parametrize("body", ["[]", "1", '"text"', "null"])
def test_json_that_is_no_object_is_a_client_error(http, body):
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = http.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert "object" in answer.json()["error"]["message"]


def raw(target, request):
    """The answer to bytes that no HTTP library would send."""
    url, answer = httpx.URL(target.url), b""
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(request)
        while part := connection.recv(65536):
            answer += part
    return answer


def test_what_is_no_http_is_refused_in_openais_shape(target):
    answer = raw(target, b"HELLO\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(target):
    answer = raw(
        target,
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 1000000000\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer


def test_a_body_that_turns_out_too_large_is_refused(http):
    def parts():
        for _ in range(100):
            yield b" " * 100_000

    headers = {"content-type": "application/json"}
    answer = http.post("/v1/completions", content=parts(), headers=headers)
    assert answer.status_code == 413


def test_the_document_describes_every_path(http):
    paths = http.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/v1/models",
        "/v1/models/{model}",
        "/v1/chat/completions",
        "/v1/completions",
        "/health",
        "/ready",
        "/openapi.json",
    }
