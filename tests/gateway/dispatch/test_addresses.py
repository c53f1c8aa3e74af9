"""Which Tritons are one and the same."""

from __future__ import annotations

import socket

import pytest

from toolkit.gateway.addresses import Address, distinct, machine_of

NAMES = {"one": {"10.0.0.1"}, "one.lan": {"10.0.0.1", "fd00::1"}, "two": {"10.0.0.2"}}


def machine(host: str) -> frozenset[str]:
    return frozenset(NAMES.get(host, {host}))


@pytest.mark.parametrize(
    ("texts", "left"),
    [
        (["one:8001/8002", "two:8001/8002"], ["one:8001", "two:8001"]),
        (["one:8001/8002", "one.lan:8001/8002"], ["one:8001"]),
        (["one:8001", "10.0.0.1:8001", "two:1"], ["one:8001", "two:1"]),
        (["one:8001/8002", "one.lan:9001/9002"], ["one:8001", "one.lan:9001"]),
        (["unknown:1", "unknown:1"], ["unknown:1"]),
    ],
)
def test_each_triton_counts_once(texts: list[str], left: list[str]) -> None:
    assert [each.grpc for each in distinct(texts, machine)] == left


def test_metrics_are_those_of_any_name() -> None:
    assert distinct(["one:1", "one.lan:1/2"], machine) == [Address("one:1", "one.lan:2")]


def test_this_machine_has_several_names() -> None:
    assert machine_of("localhost") & (machine_of("127.0.0.1") | machine_of("[::1]"))


def test_a_name_that_nobody_knows_stands_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert machine_of("GPU-7") == {"gpu-7"}


def test_what_is_no_name_stands_for_itself() -> None:
    assert machine_of("a..b") == {"a..b"}
