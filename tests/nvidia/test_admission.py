"""Order before an engine that serves in order of arrival."""

from __future__ import annotations

import pytest
from llm_serving.admission import Admission
from llm_serving.engine_api import GenerationRequest, QueueFullError, Sampling


def request(number: int, priority: int = 0) -> GenerationRequest:
    return GenerationRequest(number, (1,), Sampling(4), priority=priority)


def numbers(requests: list[GenerationRequest]) -> list[int]:
    return [each.request_id for each in requests]


def test_the_window_is_filled_by_priority_then_arrival() -> None:
    admission = Admission(window=2, max_batch_size=2, max_queue_size=10)
    for number, priority in ((1, 5), (2, 5), (3, 0), (4, 5)):
        admission.add(request(number, priority))
    assert numbers(admission.admit()) == [3, 1]
    assert numbers(admission.admit()) == []
    assert (admission.inside, admission.waiting) == (2, 2)
    admission.finish(3)
    assert numbers(admission.admit()) == [2]


def test_a_full_queue_is_refused_and_takes_again_after_an_end() -> None:
    admission = Admission(window=3, max_batch_size=2, max_queue_size=1)
    for number in (1, 2, 3):
        admission.add(request(number))
    with pytest.raises(QueueFullError, match="max_queue_size"):
        admission.add(request(4))
    admission.admit()
    admission.finish(2)
    admission.add(request(4))


def test_a_request_that_waits_can_end() -> None:
    admission = Admission(window=1, max_batch_size=1, max_queue_size=5)
    for number in (1, 2, 3):
        admission.add(request(number))
    admission.admit()
    admission.finish(2)
    admission.finish(2)
    admission.finish(1)
    assert numbers(admission.admit()) == [3]
