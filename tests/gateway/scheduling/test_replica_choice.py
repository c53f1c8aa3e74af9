"""Least-loaded, and the remembered beginning as long as it overloads nobody."""

from __future__ import annotations

from toolkit.gateway.scheduling import ReplicaLoad, ReplicaSpec, Scheduler, Ticket
from toolkit.gateway.scheduling.prefixes import BLOCK
from toolkit.spec.gateway import Scheduling


def scheduler(replicas: int, *, affinity: bool = True, slots: int = 16) -> Scheduler:
    section = {"prefix_affinity": affinity, "classes": {"interactive": {"weight": 1}}}
    made = Scheduler.of(Scheduling.model_validate(section))
    for k in range(replicas):
        made.add_replica(ReplicaSpec(f"r{k}", "m", slots=slots, kv_tokens=0), 0.0)
    return made


def ticket(name: str, prefix: tuple[int, ...], at: float = 0.0) -> Ticket:
    tokens = len(prefix) * BLOCK + 10
    return Ticket(name, "m", "interactive", tokens, 100, prefix, at)


def send(made: Scheduler, one: Ticket, now: float = 0.0) -> str:
    assert made.submit(one, now) is None
    (sent,) = made.dispatch(now)
    return sent.replica


def test_a_conversation_comes_home() -> None:
    made = scheduler(4)
    homes = {}
    for talk in range(8):
        homes[talk] = send(made, ticket(f"{talk}/0", (talk, talk + 100)))
    assert len(set(homes.values())) == 4
    for talk in range(8):
        longer = (talk, talk + 100, talk + 200)
        assert send(made, ticket(f"{talk}/1", longer)) == homes[talk]


def test_without_affinity_load_alone_decides() -> None:
    made = scheduler(2, affinity=False)
    assert [send(made, ticket(str(k), (1, 2, 3))) for k in range(4)] == ["r0", "r1", "r0", "r1"]


def test_a_beginning_that_everybody_has_overloads_no_replica() -> None:
    made = scheduler(4)
    hot = tuple(range(20))
    for k in range(40):
        send(made, ticket(str(k), (*hot, 1000 + k)))
        running = [sum(r.running.values()) for r in made.snapshot(0.0).replicas]
        # A quarter above the least, a quarter of the slots, and the one that was just sent.
        assert max(running) <= 1.25 * min(running) + 16 / 4 + 1
    assert min(running) >= 7


def test_a_cache_that_does_not_keep_its_promise_is_trusted_less() -> None:
    made = scheduler(2)
    for k in range(60):
        send(made, ticket(str(k), (1, 2, 3, 4)), k)
        made.first_token(str(k), k + 0.5)
        made.finish(str(k), output_tokens=5, cached_tokens=0, now=k + 0.6)
    replica = max(made._lanes["m"].replicas.values(), key=lambda r: len(r.prefixes))
    assert replica.cached_tokens(ticket("x", (1, 2, 3, 4))) <= 0.15 * 4 * BLOCK


def test_a_replica_that_failed_is_remembered_for_nothing() -> None:
    made = scheduler(2)
    home = send(made, ticket("1", (1, 2, 3)))
    made.eject(home, 1.0)
    made.withdraw("1", 1.0)
    assert send(made, ticket("2", (1, 2, 3, 4)), 1.0) != home
    made.readmit(home, 2.0)
    assert send(made, ticket("3", (1, 2, 3, 4, 5)), 2.0) != home


def test_other_clients_of_an_engine_take_their_slots() -> None:
    made = scheduler(1, slots=8)
    made.observe("r0", ReplicaLoad(running=5, waiting=0), 0.0)
    for k in range(8):
        made.submit(ticket(str(k), ()), 0.0)
    assert len(made.dispatch(0.1)) == 3
    assert made.wake_at(0.1) == 3.0
    assert len(made.dispatch(3.1)) == 5  # metrics that old say nothing


def test_an_engine_whose_queue_stays_full_is_sent_nothing_more() -> None:
    made = scheduler(1, slots=8)
    for k in range(6):
        send(made, ticket(str(k), ()))
    for look in range(3):
        assert made.snapshot(look).replicas[0].room == 2
        made.observe("r0", ReplicaLoad(running=4, waiting=2), float(look))
    made.submit(ticket("x", ()), 3.0)
    assert made.dispatch(3.0) == []
    made.observe("r0", ReplicaLoad(running=6, waiting=0), 3.5)
    assert len(made.dispatch(3.5)) == 1
