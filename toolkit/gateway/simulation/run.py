"""Events in order: arrivals, steps, metrics, outages; the scheduler in the middle."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from toolkit.gateway.scheduling import ReplicaSpec, Scheduler, Ticket
from toolkit.gateway.simulation.engine import Running, SimulatedEngine
from toolkit.gateway.simulation.model import EngineModel
from toolkit.gateway.simulation.outcome import Outcome, Run
from toolkit.gateway.simulation.trace import Planned
from toolkit.spec.gateway import Scheduling

_METRICS_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Outage:
    """A replica that fails at one time and is back at another."""

    replica: str
    begin: float
    end: float


def simulate(
    trace: Iterable[Planned],
    scheduling: Scheduling,
    engines: Mapping[str, EngineModel],
    *,
    model: str = "model",
    outages: Sequence[Outage] = (),
    until: float | None = None,
    priors: bool = True,
) -> Run:
    """Run a trace through the real scheduler in front of simulated engines.

    Args:
        trace: the load; see :mod:`toolkit.gateway.simulation.trace`.
        scheduling: the deployment's section, policy and classes.
        engines: by replica id.
        until: stop then, seconds; otherwise when everything has ended.
        priors: tell the scheduler the engines' rates; without, it has to find out.
    """
    simulation = Simulation(Scheduler.of(scheduling))
    for name, engine in engines.items():
        simulation.add(name, model, engine, priors=priors)
    for outage in outages:
        simulation.at(outage.begin, lambda o=outage: simulation.fail(o.replica))  # type: ignore[misc]
        simulation.at(outage.end, lambda o=outage: simulation.recover(o.replica))  # type: ignore[misc]
    for planned in trace:
        simulation.arrives(planned, planned.at)
    return simulation.run(until)


class Simulation:
    """The clock, the engines and the bookkeeping of one run."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.now = 0.0
        self.scheduler = scheduler
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._engines: dict[str, SimulatedEngine] = {}
        self._busy: dict[str, int] = {}  # the step under way, by replica
        self._requests: dict[str, Running] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._wake: float | None = None
        self._waking = 0  # pending events that only watch

    def add(self, name: str, model: str, engine: EngineModel, *, priors: bool = True) -> None:
        """One more replica."""
        full = engine.step_time(0, engine.slots, 0)
        spec = ReplicaSpec(
            id=name,
            model=model,
            slots=engine.slots,
            kv_tokens=engine.kv_tokens,
            prefill_tokens_per_s=1 / engine.prefill_s if priors and engine.prefill_s else None,
            decode_tokens_per_s=engine.slots / full if priors and full else None,
        )
        self._engines[name] = SimulatedEngine(engine)
        self.scheduler.add_replica(spec, self.now)

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do something then."""
        heapq.heappush(self._events, (when, next(self._serial), what))

    def run(self, until: float | None) -> Run:
        """Everything in order, to the end."""
        self._watch()
        while self._events and (until is None or self._events[0][0] <= until):
            if until is None and len(self._events) == self._waking and self._settled():
                break
            self.now, _, what = heapq.heappop(self._events)
            what()
        return Run(tuple(self._outcomes.values()))

    def _settled(self) -> bool:
        return not self._requests

    # Requests

    def arrives(self, planned: Planned, when: float) -> None:
        """A request of the trace comes then."""
        self.at(when, lambda: self._submit(planned))

    def _submit(self, planned: Planned) -> None:
        name = str(len(self._outcomes))
        deadline = None if planned.deadline_s is None else self.now + planned.deadline_s
        ticket = Ticket(
            id=name,
            model=planned.model,
            request_class=planned.request_class,
            prompt_tokens=planned.prompt_tokens,
            max_tokens=planned.max_tokens,
            prefix=planned.prefix,
            arrived=self.now,
            deadline=deadline,
            owner=planned.owner,
        )
        refusal = self.scheduler.submit(ticket, self.now)
        self._outcomes[name] = Outcome(
            id=name,
            request_class=planned.request_class,
            ended="unfinished" if refusal is None else refusal.reason,
            arrived=self.now,
            prompt_tokens=planned.prompt_tokens,
            owner=planned.owner,
        )
        if refusal is None:
            self._requests[name] = Running(name, planned)
            self._act()

    def _note(self, name: str, **what: object) -> None:
        self._outcomes[name] = replace(self._outcomes[name], **what)  # type: ignore[arg-type]

    # The gateway

    def _act(self) -> None:
        """What the gateway does after every event."""
        for late in self.scheduler.overdue(self.now):
            self._end(late.ticket, "overdue")
        for assignment in self.scheduler.dispatch(self.now):
            name, replica = assignment.ticket, assignment.replica
            request = self._requests[name]
            self._note(name, replica=replica, sent_at=self.now)
            delay = self._engines[replica].model.send_s
            self.at(
                self.now + delay,
                lambda r=request, to=replica: self._deliver(r, to),  # type: ignore[misc]
            )
        self._sleep()

    def _sleep(self) -> None:
        wake = self.scheduler.wake_at(self.now)
        if wake is None or (self._wake is not None and self._wake <= wake):
            return
        self._wake = max(wake, self.now)
        self._waking += 1
        self.at(self._wake, self._awake)

    def _awake(self) -> None:
        self._waking -= 1
        self._wake = None
        self._act()

    def _end(self, name: str, how: str) -> None:
        """The gateway gives a request up."""
        self.scheduler.withdraw(name, self.now)
        request = self._requests.pop(name)
        outcome = self._outcomes[name]
        if outcome.replica is not None and not request.gone:
            engine = self._engines[outcome.replica]
            if request.lease is not None or request in engine.waiting:
                engine.cancel(request)
            request.gone = True
        self._note(name, ended=how, ended_at=self.now, output_tokens=request.reported)

    # Engines

    def _deliver(self, request: Running, replica: str) -> None:
        if request.gone or self._outcomes[request.id].replica != replica:
            return
        self._engines[replica].add(request)
        self._begin(replica)

    def _begin(self, replica: str) -> None:
        if replica in self._busy:
            return
        seconds = self._engines[replica].begin_step()
        if seconds is not None:
            step = next(self._serial)
            self._busy[replica] = step
            self.at(self.now + seconds, lambda: self._step_ends(replica, step))

    def _step_ends(self, replica: str, step: int) -> None:
        if self._busy.get(replica) != step:
            return  # it failed meanwhile
        del self._busy[replica]
        end = self._engines[replica].end_step()
        for request in end.first:
            self.scheduler.first_token(request.id, self.now)
            self.scheduler.progress(request.id, 1, self.now)
            self._note(request.id, first_token_at=self.now, cached_tokens=request.cached)
        for request, tokens in end.more:
            self.scheduler.progress(request.id, tokens, self.now)
        for request in end.done:
            self._done(request)
        if end.first or end.done:
            self._act()
        self._begin(replica)

    def _done(self, request: Running) -> None:
        plan = request.plan
        self.scheduler.finish(
            request.id,
            output_tokens=plan.output_tokens,
            cached_tokens=request.cached,
            now=self.now,
        )
        del self._requests[request.id]
        self._note(request.id, ended="done", ended_at=self.now, output_tokens=plan.output_tokens)
        if plan.then is not None:
            self.arrives(plan.then, self.now + plan.then.at)

    # Metrics and failures

    def _watch(self) -> None:
        for name, engine in self._engines.items():
            self.scheduler.observe(name, engine.load(), self.now)
        self._act()
        self._waking += 1
        self.at(self.now + _METRICS_EVERY_S, self._look)

    def _look(self) -> None:
        self._waking -= 1
        self._watch()

    def fail(self, replica: str) -> None:
        """A replica loses everything; what has no token yet is retried elsewhere."""
        self._busy.pop(replica, None)
        self._engines[replica] = SimulatedEngine(self._engines[replica].model)
        for name in self.scheduler.eject(replica, self.now):
            request = self._requests[name]
            request.gone = True
            if request.started is not None or self.scheduler.requeue(name, self.now) is not None:
                self._end(name, "failed")
                continue
            self._requests[name] = Running(name, request.plan)
            self._note(name, replica=None, sent_at=None)
        self._act()

    def recover(self, replica: str) -> None:
        """It is back, empty."""
        self.scheduler.readmit(replica, self.now)
        self._act()
