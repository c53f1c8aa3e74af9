"""One engine as the scheduler keeps it: what runs there and what still fits."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.gateway.scheduling.tickets import ReplicaSpec, Ticket


@dataclass(slots=True)
class Job:
    """A ticket while the scheduler knows it: waiting (no replica) or with an engine."""

    ticket: Ticket
    replica: str | None = None
    sent_at: float = 0.0
    first_token_at: float | None = None
    tokens: int = 0
    shunned: frozenset[str] = frozenset()


@dataclass(slots=True)
class Replica:
    """Slots and KV tokens of one engine, and the jobs that hold them."""

    spec: ReplicaSpec
    up: bool = True
    jobs: dict[str, Job] = field(default_factory=dict)
    outstanding: int = 0
    kv_reserved: int = 0

    def fits(self, job: Job) -> bool:
        """Whether the engine would start this job at once."""
        if not self.up or len(self.jobs) >= self.spec.slots or self.spec.id in job.shunned:
            return False
        need = job.ticket.prompt_tokens + job.ticket.max_tokens
        return not self.spec.kv_tokens or self.kv_reserved + need <= self.spec.kv_tokens

    def holds_at_all(self, ticket: Ticket) -> bool:
        """Whether an empty engine could serve this ticket."""
        need = ticket.prompt_tokens + ticket.max_tokens
        return not self.spec.kv_tokens or need <= self.spec.kv_tokens

    def take(self, job: Job) -> None:
        """The job is sent here."""
        self.jobs[job.ticket.id] = job
        self.kv_reserved += job.ticket.prompt_tokens + job.ticket.max_tokens
        self.outstanding += job.ticket.prompt_tokens + job.ticket.max_tokens

    def progress(self, job: Job, tokens: int) -> None:
        """So many more tokens of the job have come."""
        job.tokens += tokens
        self.outstanding -= tokens

    def drop(self, job: Job) -> None:
        """The job is no longer here."""
        del self.jobs[job.ticket.id]
        self.kv_reserved -= job.ticket.prompt_tokens + job.ticket.max_tokens
        self.outstanding -= job.ticket.prompt_tokens + job.ticket.max_tokens - job.tokens
