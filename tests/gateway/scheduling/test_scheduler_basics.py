"""What every policy does: room, order, withdrawal, failure of a replica."""

from __future__ import annotations

import pytest

from toolkit.gateway.scheduling import (
    Assignment,
    Overdue,
    ReplicaSpec,
    Scheduler,
    Ticket,
    block_hashes,
)
from toolkit.spec.gateway import RequestClass, Scheduling


def ticket(name: str, arrived: float = 0.0, **extra: object) -> Ticket:
    fields: dict[str, object] = {
        "id": name,
        "model": "m",
        "request_class": "interactive",
        "prompt_tokens": 10,
        "max_tokens": 10,
        "prefix": (),
        "arrived": arrived,
    }
    return Ticket(**(fields | extra))  # type: ignore[arg-type]


def scheduler(*specs: ReplicaSpec, **fields: object) -> Scheduler:
    made = Scheduler.of(Scheduling.model_validate({"policy": "fcfs"} | fields))
    for spec in specs or (ReplicaSpec("a", "m", slots=1, kv_tokens=100),):
        made.add_replica(spec, 0.0)
    return made


def test_a_request_waits_until_the_slot_before_it_is_free() -> None:
    made = scheduler()
    assert made.submit(ticket("1"), 0.0) is None
    assert made.submit(ticket("2"), 0.0) is None
    assert made.dispatch(0.0) == [Assignment("1", "a")]
    assert made.dispatch(0.0) == []
    made.finish("1", output_tokens=3, cached_tokens=0, now=1.0)
    assert made.dispatch(1.0) == [Assignment("2", "a")]


def test_the_kv_cache_is_never_promised_twice() -> None:
    made = scheduler(ReplicaSpec("a", "m", slots=8, kv_tokens=80))
    for name in "123":
        made.submit(ticket(name), 0.0)
    assert [a.ticket for a in made.dispatch(0.0)] == ["1", "2"]


def test_the_least_loaded_replica_goes_first() -> None:
    made = scheduler(
        ReplicaSpec("a", "m", slots=2, kv_tokens=0), ReplicaSpec("b", "m", slots=2, kv_tokens=0)
    )
    made.submit(ticket("long", max_tokens=500), 0.0)
    made.submit(ticket("1"), 0.0)
    made.submit(ticket("2"), 0.0)
    assert [a.replica for a in made.dispatch(0.0)] == ["a", "b", "b"]


def test_refusals_name_their_reason() -> None:
    made = scheduler(classes={"interactive": {"max_queued": 1}})
    assert made.submit(ticket("1", model="other"), 0.0).reason == "no_replica"  # type: ignore[union-attr]
    assert made.submit(ticket("1", prompt_tokens=91), 0.0).reason == "too_large"  # type: ignore[union-attr]
    assert made.submit(ticket("1"), 0.0) is None
    assert made.submit(ticket("2"), 0.0).reason == "queue_full"  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="there already"):
        made.submit(ticket("1"), 0.0)


def test_a_withdrawn_request_frees_its_slot_once() -> None:
    made = scheduler()
    made.submit(ticket("1"), 0.0)
    made.submit(ticket("2"), 0.0)
    made.dispatch(0.0)
    made.withdraw("1", 0.1)
    made.withdraw("1", 0.1)
    assert made.dispatch(0.1) == [Assignment("2", "a")]
    assert made.snapshot(0.1).replicas[0].kv_reserved == 32


def test_what_a_failed_replica_had_goes_elsewhere_with_its_age() -> None:
    made = scheduler(
        ReplicaSpec("a", "m", slots=1, kv_tokens=0), ReplicaSpec("b", "m", slots=1, kv_tokens=0)
    )
    for name, arrived in (("1", 0.0), ("2", 0.1), ("3", 0.2)):
        made.submit(ticket(name, arrived), arrived)
    assert [a.replica for a in made.dispatch(0.2)] == ["a", "b"]
    assert made.eject("a", 0.3) == ("1",)
    assert made.requeue("1", 0.3) is None
    assert made.dispatch(0.3) == []
    made.finish("2", output_tokens=1, cached_tokens=0, now=0.4)
    assert made.dispatch(0.4) == [Assignment("1", "b")]
    made.readmit("a", 0.5)
    assert made.dispatch(0.5) == [Assignment("3", "a")]


def test_a_replica_that_is_added_anew_is_nobody_s_failed_one() -> None:
    made = scheduler(
        ReplicaSpec("a", "m", slots=1, kv_tokens=0), ReplicaSpec("b", "m", slots=1, kv_tokens=0)
    )
    made.submit(ticket("1"), 0.0)
    assert made.dispatch(0.0) == [Assignment("1", "a")]
    made.eject("a", 0.1)
    made.eject("b", 0.1)
    assert made.requeue("1", 0.1) is None
    made.readmit("a", 0.2)
    assert made.dispatch(0.2) == []
    made.remove_replica("a", 0.3)
    made.add_replica(ReplicaSpec("a", "m", slots=1, kv_tokens=0), 0.3)
    assert made.dispatch(0.3) == [Assignment("1", "a")]


def test_the_last_replica_s_failure_is_told() -> None:
    made = scheduler()
    made.submit(ticket("1"), 0.0)
    made.dispatch(0.0)
    made.eject("a", 0.1)
    refusal = made.requeue("1", 0.1)
    assert refusal is not None
    assert refusal.reason == "no_replica"
    assert made.submit(ticket("1"), 0.2).reason == "no_replica"  # type: ignore[union-attr]


def test_time_is_up_for_what_waits_too_long_and_for_what_misses_its_deadline() -> None:
    classes = {"interactive": RequestClass(max_wait=2.0).model_dump()}
    made = scheduler(classes=classes)
    made.submit(ticket("1", deadline=5.0), 0.0)
    made.submit(ticket("2"), 0.0)
    made.dispatch(0.0)
    assert made.wake_at(0.0) == 2.0
    assert made.overdue(1.9) == []
    assert made.overdue(2.1) == [Overdue("2", running=False)]
    made.withdraw("2", 2.1)
    assert made.wake_at(2.1) == 5.0
    assert made.overdue(5.0) == [Overdue("1", running=True)]


def test_equal_beginnings_have_equal_names() -> None:
    one = block_hashes(range(100))
    other = block_hashes([*range(64), *range(1000, 1036)])
    assert len(one) == 3
    assert one[:2] == other[:2]
    assert one[2] != other[2]
    assert block_hashes(range(31)) == ()


def test_what_ran_on_a_replaced_replica_does_not_count_for_its_successor() -> None:
    made = scheduler()
    for name in "123":
        made.submit(ticket(name), 0.0)
    made.dispatch(0.0)
    assert made.remove_replica("a", 1.0) == ("1",)
    made.add_replica(ReplicaSpec("a", "m", slots=1, kv_tokens=100), 1.0)
    made.first_token("1", 1.1)
    made.progress("1", 5, 1.1)
    assert made.snapshot(1.1).replicas[0].outstanding_tokens == 0
    assert made.dispatch(1.1) == [Assignment("2", "a")]
    before = made.snapshot(1.1)
    made.progress("1", 3, 1.2)
    made.finish("1", output_tokens=8, cached_tokens=0, now=1.3)
    assert made.snapshot(1.3).replicas == before.replicas
    made.finish("2", output_tokens=8, cached_tokens=0, now=1.4)
    assert made.dispatch(1.4) == [Assignment("3", "a")]


def test_who_is_late_and_still_there_is_looked_at_again_soon() -> None:
    made = scheduler()
    made.submit(ticket("1", deadline=5.0), 0.0)
    made.dispatch(0.0)
    assert made.overdue(5.0) == [Overdue("1", running=True)]
    again = made.wake_at(5.0)
    assert again is not None
    assert 5.0 < again < 6.0
    made.withdraw("1", 5.5)
    assert made.wake_at(5.5) is None
