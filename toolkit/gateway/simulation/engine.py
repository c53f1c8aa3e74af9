"""One simulated engine: in-flight batching with chunked prompts, first come first served.

Running answers get one token a step; what is left of the step's token budget goes to prompts in
the order they came, and to new requests as long as slots and KV blocks are there. A step costs
what :class:`EngineModel` says. Answers are not walked through token by token: each one's last step
is known when it starts, so a step costs what begins and ends in it, however many run.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from toolkit.gateway.scheduling.prefixes import BLOCK
from toolkit.gateway.scheduling.tickets import ReplicaLoad
from toolkit.gateway.simulation.cache import BlockCache, Lease
from toolkit.gateway.simulation.model import EngineModel
from toolkit.gateway.simulation.trace import Planned


@dataclass(slots=True, eq=False)
class Running:
    """A request in the engine. ``started`` is the step that made its first token.

    ``known_cached`` prompt tokens are not computed whatever the cache says: for replaying what
    was measured.
    """

    id: str
    plan: Planned
    known_cached: int = 0
    lease: Lease | None = None
    cached: int = 0
    computed: int = 0
    started: int | None = None
    reported: int = 0
    gone: bool = False


@dataclass(slots=True)
class StepEnd:
    """What a step brought: first tokens, tokens of running answers, complete answers."""

    first: list[Running] = field(default_factory=list)
    more: list[tuple[Running, int]] = field(default_factory=list)
    done: list[Running] = field(default_factory=list)


class SimulatedEngine:
    """State of one engine; the caller owns the clock.

    ``report_every``: tokens of an answer that are told together.
    """

    def __init__(self, model: EngineModel, report_every: int = 8) -> None:
        self.model = model
        self._every = report_every
        self.waiting: deque[Running] = deque()
        self._reading: list[Running] = []
        self._completing: list[Running] = []
        self._ends: list[tuple[int, int, Running]] = []
        self._reports: dict[int, list[Running]] = {}
        self._cache = BlockCache(model.kv_tokens, reuse=model.reuse)
        self._step = 0
        self._serial = 0
        self._writing = 0
        self._context = 0

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return self._writing + len(self._reading) + len(self._completing)

    def load(self) -> ReplicaLoad:
        """What its metrics say."""
        return ReplicaLoad(float(self.running), float(len(self.waiting)), self._cache.use)

    def add(self, request: Running) -> None:
        """A request comes to the engine's own queue."""
        self.waiting.append(request)

    def cancel(self, request: Running) -> None:
        """Take a request back, wherever it stands."""
        request.gone = True
        if request.lease is None:
            self.waiting.remove(request)
            return
        self._cache.release(request.lease, ())
        if request.started is None:
            queue = self._reading if request in self._reading else self._completing
            queue.remove(request)
        else:
            self._writing -= 1
            self._context -= request.plan.prompt_tokens + self._step - request.started + 1

    def begin_step(self) -> float | None:
        """Plan a step and return its seconds; None when there is nothing to do."""
        budget = self.model.max_num_tokens - self._writing
        read = 0
        while budget - read > 0:
            if not self._reading and not self._admit():
                break
            request = self._reading[0]
            chunk = min(budget - read, request.plan.prompt_tokens - request.computed)
            request.computed += chunk
            read += chunk
            if request.computed == request.plan.prompt_tokens:
                self._completing.append(self._reading.pop(0))
        if not read and not self._writing:
            return None
        return self.model.step_time(read, self._writing, self._context)

    def _admit(self) -> bool:
        if not self.waiting or self.running >= self.model.slots:
            return False
        plan = self.waiting[0].plan
        lease = self._cache.admit(
            plan.prefix, plan.prompt_tokens, plan.prompt_tokens + plan.max_tokens
        )
        if lease is None:
            return False
        request = self.waiting.popleft()
        request.lease = lease
        request.cached = max(len(lease.names) * BLOCK, request.known_cached)
        request.computed = min(request.cached, plan.prompt_tokens - 1)
        self._reading.append(request)
        return True

    def end_step(self) -> StepEnd:
        """The step is over: what came of it."""
        self._step += 1
        self._context += self._writing
        end = StepEnd()
        for request in self._reports.pop(self._step, ()):
            if not request.gone and request.started is not None:
                self._tell(request, end)
                self._plan_report(request)
        while self._ends and self._ends[0][0] <= self._step:
            request = heapq.heappop(self._ends)[2]
            if not request.gone:
                self._finish(request, end)
        for request in self._completing:
            self._start(request, end)
        self._completing = []
        return end

    def _start(self, request: Running, end: StepEnd) -> None:
        assert request.lease is not None  # it was admitted
        self._cache.publish(request.lease, request.plan.prefix)
        request.started = self._step
        request.reported = 1
        end.first.append(request)
        self._writing += 1
        self._context += request.plan.prompt_tokens + 1
        if request.plan.output_tokens <= 1:
            self._finish(request, end)
            return
        self._serial += 1
        last = self._step + request.plan.output_tokens - 1
        heapq.heappush(self._ends, (last, self._serial, request))
        self._plan_report(request)

    def _plan_report(self, request: Running) -> None:
        self._reports.setdefault(self._step + self._every, []).append(request)

    def _tell(self, request: Running, end: StepEnd) -> None:
        assert request.started is not None
        assert request.lease is not None
        tokens = self._step - request.started + 1
        end.more.append((request, tokens - request.reported))
        request.reported = tokens
        self._cache.fill(request.lease, request.plan.prompt_tokens + tokens)

    def _finish(self, request: Running, end: StepEnd) -> None:
        assert request.lease is not None
        request.gone = True
        self._writing -= 1
        self._context -= request.plan.prompt_tokens + request.plan.output_tokens
        self._cache.release(request.lease, request.plan.after or request.plan.prefix)
        end.done.append(request)
