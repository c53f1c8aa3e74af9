"""After a crash: how soon, how often, with how much memory."""

from __future__ import annotations

import pytest

from toolkit.serving.diagnose import diagnose
from toolkit.serving.health import StallDetector
from toolkit.serving.metrics import Load
from toolkit.serving.recovery import Ending, Recovery, RecoveryPolicy

POLICY = RecoveryPolicy(
    crash_limit=4, crash_window=100, backoff=1, max_backoff=3, steady=50, kv_minimum=0.3
)
SERVED = Ending("died", False, None, served=1.0)
NEVER = Ending("died", False, None, served=None)
OOM = Ending("died", True, None, served=None)


def recovery() -> Recovery:
    return Recovery(POLICY, any_port=False)


def test_back_off_doubles_up_to_its_limit() -> None:
    patient = Recovery(RecoveryPolicy(crash_limit=9, backoff=1, max_backoff=3), any_port=False)
    delays = [patient.decide(SERVED, at).delay for at in (0.0, 1.0, 2.0, 3.0)]
    assert delays == [1, 2, 3, 3]


def test_steady_service_forgets_the_back_off() -> None:
    each = recovery()
    each.decide(SERVED, 0)
    assert each.decide(Ending("died", False, None, served=60), 70).delay == 1


def test_crash_loop_ends_but_rare_crashes_do_not() -> None:
    each = recovery()
    assert [each.decide(SERVED, at).action for at in (0, 1, 2)] == ["restart"] * 3
    last = each.decide(SERVED, 3)
    assert last.action == "give_up"
    assert "crash loop: 4 crashes" in last.why
    rare = recovery()
    assert {rare.decide(SERVED, at * 40.0).action for at in range(20)} == {"restart"}


def test_server_that_never_worked_is_not_tried_again() -> None:
    assert recovery().decide(NEVER, 0).action == "give_up"
    worked = recovery()
    worked.decide(SERVED, 0)
    assert worked.decide(NEVER, 1).action == "restart"


def test_out_of_memory_shrinks_the_cache_until_it_makes_no_sense() -> None:
    each = recovery()
    scales = [each.decide(OOM, at) for at in (0.0, 1.0, 2.0)]
    assert [round(one.kv_scale, 3) for one in scales] == [0.7, 0.49, 0.343]
    assert each.decide(OOM, 200.0).action == "give_up"
    assert "out of memory even with 34%" in each.decide(OOM, 400.0).why


def test_smaller_cache_is_kept_after_another_crash() -> None:
    each = recovery()
    each.decide(OOM, 0)
    assert each.decide(SERVED, 1).kv_scale == pytest.approx(0.7)


def test_lost_port_is_chosen_anew_only_where_any_will_do() -> None:
    taken = diagnose(["failed to start HTTP service: Unavailable - Socket 'x' already in use"])
    ending = Ending("died", False, taken, served=None)
    assert Recovery(POLICY, any_port=True).decide(ending, 0).action == "choose_ports"
    assert Recovery(POLICY, any_port=False).decide(ending, 0).action == "give_up"


def load(running: float | None, iterations: float | None) -> Load:
    return Load(running=running, waiting=0, kv_cache_use=None, iterations=iterations)


def test_stall_is_work_without_steps() -> None:
    detector = StallDetector(timeout=10)
    assert not detector.stalled(load(2, 5), 0)
    assert not detector.stalled(load(2, 5), 9)
    assert detector.stalled(load(2, 5), 10)
    assert not detector.stalled(load(2, 6), 20)


@pytest.mark.parametrize("figures", [(0, 5), (None, 5), (3, None)])
def test_idle_or_silent_engine_does_not_stall(figures: tuple[float | None, float | None]) -> None:
    detector = StallDetector(timeout=10)
    assert not any(detector.stalled(load(*figures), at) for at in (0.0, 20.0, 40.0))
