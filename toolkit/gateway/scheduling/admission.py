"""What is refused at once, because waiting would not help it."""

from __future__ import annotations

from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.lane import Lane
from toolkit.gateway.scheduling.queued import Queued
from toolkit.gateway.scheduling.replica import Job
from toolkit.gateway.scheduling.tickets import Refusal

_RETRY_DOWN_S = 5.0
_RETRY_LEAST_S = 1.0
_RETRY_MOST_S = 60.0
_CERTAINTY = 0.9  # of a wait's limit: to be refused is better than to wait in vain
_QUEUE_PART = 0.1  # of a full queue that should have gone before it is worth coming back


def refusal(
    job: Job, policy: ClassPolicy, lane: Lane | None, queued: Queued, now: float
) -> Refusal | None:
    """Why a new job is not taken, or None; fills in what it is expected to need.

    ``queued`` counts the requests that wait already. Whether one comes in time is judged
    only by a pace that has been measured; a TTFT target is an aim, not a limit.
    """
    ticket = job.ticket
    if lane is None or not lane.up():
        return Refusal("no_replica", f"no replica serves {ticket.model} now", _RETRY_DOWN_S)
    lane.estimate(job)
    lane.arrives(job, now)
    if not any(replica.holds_at_all(ticket) for replica in lane.replicas.values()):
        most = max(replica.spec.kv_tokens for replica in lane.replicas.values())
        asked = ticket.prompt_tokens + ticket.max_tokens
        return Refusal(
            "too_large", f"{asked} tokens of prompt and answer; the KV cache holds {most}", 0.0
        )
    wait = lane.foresee(job, now)
    if queued.full_for(ticket, policy):
        message = f"{queued.of(policy.name)} requests of class {policy.name} wait already"
        return Refusal("queue_full", message, _retry(wait * _QUEUE_PART))
    return _too_late(job, policy, lane, wait, now)


def _too_late(job: Job, policy: ClassPolicy, lane: Lane, wait: float, now: float) -> Refusal | None:
    deadline = job.ticket.deadline
    if deadline is not None and deadline <= now:
        return Refusal("too_late", "the deadline has passed", _RETRY_LEAST_S)
    if not lane.capacity(now).known:
        return None
    if policy.max_wait_s is not None:
        left = job.ticket.arrived + policy.max_wait_s - now
        if wait > _CERTAINTY * left:
            message = (
                f"the wait would be {wait:.1f} s; class {policy.name} allows {max(left, 0):.1f} s"
            )
            return Refusal("too_late", message, _retry(wait - left))
    if deadline is not None:
        needed, left = wait + lane.stay_s(job), deadline - now
        if needed > left:
            message = f"it would take {needed:.1f} s; the deadline is in {left:.1f} s"
            return Refusal("too_late", message, _retry(min(needed - left, wait)))
    return None


def _retry(seconds: float) -> float:
    return min(_RETRY_MOST_S, max(_RETRY_LEAST_S, seconds))
