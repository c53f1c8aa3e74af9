"""Settings that cannot work are refused before a model is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from paged_engine.config import EngineConfig

GOOD: dict[str, Any] = {
    "max_batch_size": 4,
    "max_input_len": 99,
    "max_seq_len": 100,
    "max_num_tokens": 12,
    "speculation": "ngram",
    "max_draft_len": 2,
}


def test_the_tightest_settings_are_taken() -> None:
    assert EngineConfig.from_mapping(GOOD).max_num_tokens == 12
    whole = {"chunked_prefill": False, "max_num_tokens": 99}
    assert not EngineConfig.from_mapping(GOOD | whole).chunked_prefill


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"max_input_len": 100}, "max_input_len must be below max_seq_len"),
        ({"max_num_tokens": 11}, "at least max_batch_size x .*12"),
        ({"chunked_prefill": False, "max_num_tokens": 98}, "must cover max_input_len"),
        ({"max_draft_len": 0}, "max_draft_len belongs to a speculation method"),
        ({"speculation": "none"}, "max_draft_len belongs to a speculation method"),
        ({"max_batch": 3}, "unknown engine settings: max_batch"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        EngineConfig.from_mapping(GOOD | change)
