"""One request on its way through the dispatcher."""

from __future__ import annotations

import asyncio
import math

from toolkit.gateway.scheduling import Refusal, Ticket, block_hashes
from toolkit.gateway.work import GatewayError, Piece, Work

_BYTES_PER_TOKEN = 4


class Call:
    """Where it is: waiting for ``assigned``, or running on ``replica``."""

    def __init__(self, work: Work, now: float) -> None:
        self.work = work
        self.arrived = now
        deadline = None if work.deadline_s is None else now + work.deadline_s
        self.ticket = Ticket(
            id=work.id,
            model=work.model,
            request_class=work.request_class,
            prompt_tokens=len(work.tokens),
            max_tokens=work.sampling.max_tokens or 1,
            prefix=block_hashes(work.tokens),
            arrived=now,
            deadline=deadline,
            owner=work.owner,
        )
        self.replica: str | None = None
        self.attempts = 0
        self.tried: set[str] = set()
        self.turned_away: float | None = None  # when it first found a replica without place
        self.last_piece: float | None = None
        self.ended = False
        self.assigned: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def assign(self, replica: str) -> None:
        """The scheduler has chosen."""
        self.replica = replica
        if not self.assigned.done():
            self.assigned.set_result(replica)

    def refuse(self, error: GatewayError) -> bool:
        """End the wait with ``error``; False: it does not wait."""
        if self.assigned.done():
            return False
        self.assigned.set_exception(error)
        return True

    def wait_again(self) -> None:
        """It goes back into the queue."""
        self.replica = None
        self.assigned = asyncio.get_running_loop().create_future()

    def time_left(self, now: float) -> float | None:
        """Seconds to the deadline, if there is one."""
        return None if self.ticket.deadline is None else self.ticket.deadline - now

    def past_deadline(self, now: float, grace: float) -> bool:
        """Whether the deadline passed more than ``grace`` seconds ago."""
        return self.ticket.deadline is not None and now > self.ticket.deadline + grace

    def tokens_in(self, piece: Piece) -> int:
        """How many tokens a piece holds, roughly where the engine does not say."""
        return len(piece.token_ids) or max(1, len(piece.text) // _BYTES_PER_TOKEN)


def refusal(refused: Refusal) -> GatewayError:
    """What a client is told when the scheduler does not take its request."""
    if refused.reason == "too_large":
        return GatewayError(400, refused.message, code="context_length_exceeded", param="prompt")
    if refused.reason == "no_replica":
        return no_replica(refused.message, refused.retry_after_s)
    return GatewayError(
        429,
        refused.message,
        kind="rate_limit_error",
        code=refused.reason,
        retry_after_s=max(1.0, math.ceil(refused.retry_after_s)),
    )


def no_replica(message: str, retry_after_s: float = 1.0) -> GatewayError:
    """Nobody can serve it now."""
    return GatewayError(
        503, message, kind="server_error", code="no_replica", retry_after_s=retry_after_s
    )


def too_late(running: bool) -> GatewayError:
    """Its class's longest wait, or its own deadline, has passed."""
    what = "its deadline passed" if running else "it waited longer than its class allows"
    return GatewayError(
        504, what, kind="timeout_error", code="deadline_exceeded", retry_after_s=1.0
    )
