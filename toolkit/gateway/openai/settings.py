"""What the API itself may be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Bounds of one request and one client.

    Args:
        max_body: Bytes of a request's body.
        max_buffer: Bytes of answer kept for one client that reads more slowly than it comes;
            the server holds as many again while it sends what was kept before.
        stall_timeout: Seconds after which a client that takes (or sends) nothing is let go.
        max_choices: Sequences that one request may ask for: ``n`` times the prompts.
        long_text: Bytes from which a prompt is tokenized beside the event loop, not on it.
    """

    max_body: int = 4 * 2**20
    max_buffer: int = 256 * 2**10
    stall_timeout: float = 30.0
    max_choices: int = 64
    long_text: int = 16 * 2**10
