"""Ratios compare what was measured in the same round, with the best of the rivals."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import peer_summary
from peer_loads import Measurement


def measured(
    peer: str, number: int, tokens: float, ttft: float, *, users: int = 8, background: float = 0.0
) -> Measurement:
    return Measurement(
        round=number,
        peer=peer,
        workload="independent",
        users=users,
        tokens_per_s=tokens,
        ttft_p50=ttft,
        ttft_p95=2 * ttft,
        itl_p50=20.0,
        tpot_p50=21.0,
        e2e_p50=1500.0,
        kv_reuse=0.0,
        requests=30,
        output_tokens=64.0,
        client_saturated=False,
        background=background,
        server_cpu=3.0,
    )


TWO_ROUNDS = (
    measured("ours", 0, 300, 100),
    measured("vLLM, a", 0, 100, 50),
    measured("vLLM, b", 0, 150, 400),
    measured("other", 0, 900, 1),
    measured("ours", 1, 200, 100),
    measured("vLLM, a", 1, 110, 50),
    measured("vLLM, b", 1, 200, 300),
    measured("other", 1, 900, 1),
)


def test_a_ratio_is_of_the_same_round_and_of_the_fastest_rival() -> None:
    (found,) = peer_summary.ratios(TWO_ROUNDS, "ours", "vLLM")
    assert found.rival == "vLLM, b"
    assert found.throughput == (2.0, 1.0)
    assert found.ttft == (4.0, 3.0)


def test_a_load_that_one_side_lacks_has_no_ratio() -> None:
    alone = [measured("ours", 0, 300, 100, users=32)]
    assert len(list(peer_summary.ratios([*TWO_ROUNDS, *alone], "ours", "vLLM"))) == 1


def test_an_interrupted_round_counts_with_what_has_its_counterpart() -> None:
    (found,) = peer_summary.ratios(TWO_ROUNDS[:5], "ours", "vLLM")
    assert found.throughput == (2.0,)


def test_tables_have_medians_and_the_range() -> None:
    rows = list(peer_summary.figures_table(TWO_ROUNDS, "independent"))
    ours = next(row for row in rows if "| ours |" in row)
    assert "250 (200 to 300)" in ours
    assert "| 20 | 21 | 1,500 | 3 | 0% |" in ours
    (row,) = list(peer_summary.ratio_table(TWO_ROUNDS, "ours", "vLLM"))[2:]
    assert "1.50x (1.00 to 2.00)" in row
    assert "3.50x (3.00 to 4.00)" in row


def test_a_machine_with_other_work_is_called_loaded() -> None:
    quiet = [measured("ours", 0, 1, 1, background=0.02)] * 3
    busy = [measured("ours", 0, 1, 1, background=0.6)] * 4
    assert peer_summary.quietness(quiet).startswith("Quiet")
    assert peer_summary.quietness([*quiet, *busy]).startswith("LOADED")
