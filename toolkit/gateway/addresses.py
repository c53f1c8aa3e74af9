"""Where Tritons are, and which of them are one and the same."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Address:
    """Where one Triton is: ``host:port`` of its gRPC, and of its metrics."""

    grpc: str
    metrics: str | None

    @classmethod
    def of(cls, text: str) -> Address:
        """Read ``host:port`` or ``host:port/port``."""
        grpc, _, metrics = text.partition("/")
        host = grpc.rpartition(":")[0]
        return cls(grpc, f"{host}:{metrics}" if metrics else None)


def machine_of(host: str) -> frozenset[str]:
    """The addresses that a name stands for; the name itself where nobody knows it (yet)."""
    bare = host.strip("[]")
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter: it is no name at all
        return frozenset({bare.lower()})
    return frozenset(str(each[4][0]) for each in found)


def distinct(
    texts: Iterable[str], machine: Callable[[str], frozenset[str]] = machine_of
) -> list[Address]:
    """Each Triton once, under the first of its names, however many are given.

    Under two of them it would count as two replicas: it would be given twice what it holds, and
    a request that it failed would be tried there again.
    """
    kept: list[tuple[frozenset[str], str, Address]] = []
    for address in map(Address.of, texts):
        host, _, port = address.grpc.rpartition(":")
        there = machine(host)
        for place, (others, other_port, first) in enumerate(kept):
            if port == other_port and there & others:
                whole = replace(first, metrics=first.metrics or address.metrics)
                kept[place] = (there | others, port, whole)
                break
        else:
            kept.append((there, port, address))
    return [address for _, _, address in kept]
