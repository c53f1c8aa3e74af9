"""What cannot be in time is refused at once; what was taken and is late is named."""

from __future__ import annotations

import pytest

from toolkit.gateway.scheduling import Overdue, Refusal, ReplicaSpec, Scheduler, Ticket
from toolkit.spec.gateway import Scheduling


def scheduler(**section: object) -> Scheduler:
    made = Scheduler.of(Scheduling.model_validate(section))
    made.add_replica(ReplicaSpec("a", "m", slots=4, kv_tokens=0), 0.0)
    return made


def ticket(name: str, at: float, kind: str, deadline: float | None = None) -> Ticket:
    return Ticket(name, "m", kind, 100, 50, (), at, deadline)


class Served:
    """An engine that ends two requests a second, each in two seconds, and is kept pressed."""

    def __init__(self, made: Scheduler, kind: str) -> None:
        self.made, self.kind = made, kind
        self.now, self.count = 0.0, 0
        self.running: list[str] = []

    def more(self, count: int) -> list[Refusal | None]:
        told = []
        for _ in range(count):
            self.count += 1
            told.append(self.made.submit(ticket(f"t{self.count}", self.now, self.kind), self.now))
        self.dispatch()
        return told

    def dispatch(self) -> None:
        for sent in self.made.dispatch(self.now):
            self.running.append(sent.ticket)

    def half_a_second(self) -> None:
        self.now += 0.5
        for name in self.running:
            self.made.first_token(name, self.now)
        first = self.running.pop(0)
        self.made.finish(first, output_tokens=20, cached_tokens=0, now=self.now)
        self.dispatch()

    def warm(self, seconds: int) -> None:
        for _ in range(2 * seconds):
            self.more(max(0, 12 - self.made.snapshot(self.now).queued[self.kind]))
            self.half_a_second()


@pytest.mark.parametrize("policy", ["latency_aware", "fcfs"])
def test_the_wait_is_foretold_and_what_it_would_outlast_is_refused(policy: str) -> None:
    made = scheduler(policy=policy, classes={"only": {"max_wait": "10s"}})
    served = Served(made, "only")
    served.warm(60)
    told = served.more(30)
    taken = sum(1 for one in told if one is None)
    waits = made.snapshot(served.now).predicted_wait_s
    assert waits["only"] == pytest.approx(10, abs=2)
    assert 4 <= taken <= 12
    refused = [one for one in told if one is not None]
    assert {one.reason for one in refused} == {"too_late"}
    assert all(1 <= one.retry_after_s <= 60 for one in refused)
    late: set[str] = set()
    for _ in range(taken + 12):
        served.half_a_second()
        late |= {one.ticket for one in made.overdue(served.now)}
    assert len(late) <= 2


def test_a_deadline_that_cannot_be_kept_is_refused() -> None:
    made = scheduler(classes={"only": {}})
    served = Served(made, "only")
    served.warm(60)
    for name, left in (("late", 4.0), ("in time", 20.0)):
        told = made.submit(ticket(name, served.now, "only", served.now + left), served.now)
        assert (told is None) == (name == "in time")
    told = made.submit(ticket("past", served.now, "only", served.now), served.now)
    assert told is not None
    assert told.reason == "too_late"


def test_nobody_is_refused_for_a_pace_that_was_never_measured() -> None:
    made = scheduler(classes={"only": {"max_wait": "1s"}})
    for k in range(100):
        assert made.submit(ticket(str(k), 0.0, "only"), 0.0) is None


def test_an_urgent_class_is_not_refused_for_the_queue_of_a_patient_one() -> None:
    made = scheduler(
        classes={"quick": {"weight": 8, "ttft_ms": 500, "max_wait": "2s"}, "batch": {"weight": 1}}
    )
    served = Served(made, "batch")
    served.warm(60)
    served.more(200)
    assert made.snapshot(served.now).predicted_wait_s["batch"] > 30
    assert made.submit(ticket("q", served.now, "quick"), served.now) is None


def test_a_full_queue_says_when_to_come_back() -> None:
    made = scheduler(classes={"only": {"max_queued": 30}})
    served = Served(made, "only")
    served.warm(60)
    told = served.more(40)[-1]
    assert told is not None
    assert told.reason == "queue_full"
    assert 1 <= told.retry_after_s <= 60


def test_what_waits_for_a_replica_that_does_not_come_back_is_given_up() -> None:
    made = scheduler(starvation_after="20s", classes={"only": {}})
    for k in range(6):
        made.submit(ticket(str(k), 0.0, "only"), 0.0)
    running = [sent.ticket for sent in made.dispatch(0.0)]
    assert made.eject("a", 5.0) == tuple(running)
    for name in running:
        made.withdraw(name, 5.0)
    assert made.wake_at(5.0) == 25.0
    assert made.overdue(24.9) == []
    assert made.overdue(25.0) == [Overdue("4", False), Overdue("5", False)]


def test_who_is_late_is_named_until_withdrawn_and_never_sent() -> None:
    made = scheduler(classes={"only": {"max_wait": "2s"}})
    for k in range(6):
        made.submit(ticket(str(k), 0.0, "only"), 0.0)
    running = [sent.ticket for sent in made.dispatch(0.0)]
    for name in running:
        made.finish(name, output_tokens=1, cached_tokens=None, now=2.5)
    assert made.dispatch(2.5) == []
    assert [late.ticket for late in made.overdue(2.5)] == ["4", "5"]
    made.withdraw("4", 2.6)
    assert [late.ticket for late in made.overdue(2.6)] == ["5"]
    assert made.snapshot(2.6).queued == {"only": 0}


def test_a_class_has_no_more_running_than_it_may() -> None:
    made = scheduler(classes={"batch": {"max_running": 2}, "other": {}})
    made.add_replica(ReplicaSpec("b", "m", slots=4, kv_tokens=0), 0.0)
    for k in range(5):
        made.submit(ticket(f"b{k}", 0.0, "batch"), 0.0)
        made.submit(ticket(f"o{k}", 0.0, "other"), 0.0)
    kinds = [sent.ticket[0] for sent in made.dispatch(0.0)]
    assert (kinds.count("b"), kinds.count("o")) == (2, 5)
    assert made.snapshot(0.0).running == {"batch": 2, "other": 5}


def test_an_engine_that_had_no_place_for_a_while_is_not_taken_for_a_slow_one() -> None:
    made = scheduler(classes={"c": {"weight": 1, "max_wait": "60s"}})
    for n in range(20):
        assert made.submit(ticket(str(n), 0.0, "c"), 0.0) is None
    for turn in range(1, 200):
        now = 0.1 * turn
        for sent in made.dispatch(now):
            assert made.requeue(sent.ticket, now, full_until=now + 0.1) is None
    assert made.submit(ticket("new", 20.0, "c"), 20.0) is None
    assert made.snapshot(20.0).predicted_wait_s["c"] < 60
