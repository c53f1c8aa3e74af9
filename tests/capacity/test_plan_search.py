"""The cheapest deployment for a load, and what a million tokens cost."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from model_shapes import LLAMA_8B, LLAMA_70B

from toolkit.capacity.efficiency import TENSORRT_LLM
from toolkit.capacity.prices import Prices, cost, managed_price, read_prices
from toolkit.capacity.search import Goal, Question, cheapest_of_each, search
from toolkit.capacity.traffic import Traffic
from toolkit.checkpoint.architecture import Architecture
from toolkit.errors import SpecError
from toolkit.spec.gpus import GPUS, find_gpu
from toolkit.spec.models import Engine, Quantization

CHAT = Traffic(1000, 250)
PRICES = read_prices()


def question(arch: Architecture = LLAMA_8B, **more: object) -> Question:
    whole = Question(arch, Engine(), Quantization(), "pytorch", {"": TENSORRT_LLM})
    return replace(whole, **more)  # type: ignore[arg-type]


def test_every_option_keeps_the_targets_and_carries_the_load() -> None:
    goal = Goal(CHAT, rate=40, ttft_s=0.5, tpot_s=0.03)
    options = search(question(), goal, GPUS, PRICES)
    assert len({option.gpu.name for option in options}) >= 8
    for option in options:
        assert option.estimate.ttft_s <= 0.5
        assert option.estimate.tpot_s <= 0.03
        assert option.replicas * option.most.rate >= 40 * 0.999
        assert option.estimate.rate * option.replicas == pytest.approx(40, rel=1e-3)
    costs = [option.cost.hour for option in options]
    assert costs == sorted(costs)
    each = cheapest_of_each(options)
    assert each[0] == options[0]
    assert len(each) == len({option.gpu.name for option in each})


def test_a_fewer_replicas_would_not_do() -> None:
    goal = Goal(CHAT, rate=100, tpot_s=0.03)
    best = search(question(), goal, [find_gpu("L40S")], PRICES)[0]
    assert best.replicas > 1
    assert (best.replicas - 1) * best.most.rate < 100


def test_a_tighter_target_never_costs_less() -> None:
    costs = [
        search(question(), Goal(CHAT, 20, tpot_s=tpot), GPUS, PRICES)[0].cost.hour
        for tpot in (0.1, 0.03, 0.01, 0.005)
    ]
    assert costs == sorted(costs)
    assert search(question(), Goal(CHAT, 20, tpot_s=1e-4), GPUS, PRICES) == []


def test_a_large_model_is_spread_over_gpus() -> None:
    options = search(question(LLAMA_70B), Goal(CHAT, 2), [find_gpu("H100")], PRICES)
    assert {option.tensor for option in options if option.weights == "none"} == {2, 4, 8}
    assert all(option.memory.fits for option in options)


def test_formats_can_be_kept_and_those_the_gpu_lacks_never_come() -> None:
    kept = question(quantization=Quantization(weights="int4_awq"), keep_formats=True)
    options = search(kept, Goal(CHAT, 5), GPUS, PRICES)
    assert {(option.weights, option.kv_cache) for option in options} == {("int4_awq", "none")}
    a100 = search(question(), Goal(CHAT, 5), [find_gpu("A100-80")], PRICES)
    assert {option.weights for option in a100} == {"none", "int4_awq"}
    assert {option.kv_cache for option in a100} == {"none"}
    b200 = search(question(), Goal(CHAT, 5), [find_gpu("B200")], PRICES)
    assert "nvfp4" in {option.weights for option in b200}


def test_calibrated_factors_go_before_the_general_ones() -> None:
    slow = replace(TENSORRT_LLM, bandwidth=TENSORRT_LLM.bandwidth / 3)
    goal = Goal(CHAT, 200, tpot_s=0.01)
    usual, own = (
        search(question(factors=factors), goal, [find_gpu("H100")], PRICES)[0]
        for factors in ({"": TENSORRT_LLM}, {"": TENSORRT_LLM, "H100": slow})
    )
    assert own.cost.gpus > usual.cost.gpus


def test_the_price_of_a_million_tokens() -> None:
    prices = Prices.model_validate(
        {
            "gpus": {"H100": {"usd_per_hour": 3.0}},
            "engineer": {"usd_per_hour": 73, "hours_per_month": 10},
            "utilisation": 0.5,
            "managed": {"usd_per_million_input": 0.2, "usd_per_million_output": 1.2},
        }
    )
    made = cost(prices, "H100", 4, CHAT, rate=10)
    assert (made.gpus, made.people, made.hour) == (12, 1, 13)
    assert made.million == pytest.approx(13 / (10 * 0.5 * 3600 * 1250 / 1e6))
    assert made.managed == managed_price(prices, CHAT) == pytest.approx(0.4)
    with pytest.raises(SpecError):
        cost(prices, "L4", 1, CHAT, 1)


def test_the_table_that_comes_along_says_whose_prices_it_holds() -> None:
    # A GPU without a price would be left out of every search, silently.
    assert set(PRICES.gpus) == {gpu.name for gpu in GPUS}
    for name, price in PRICES.gpus.items():
        assert find_gpu(name).name == name
        assert price.usd_per_hour > 0
        assert price.source
        assert price.date.startswith("202")


def test_an_own_table_is_read_and_a_broken_one_named(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("gpus: {h100 sxm: {usd_per_hour: 2}}\nmanaged: null\n")
    own = read_prices(file)
    assert own.gpus["H100"].usd_per_hour == 2
    assert own.managed is None
    assert own.utilisation == 1
    for broken in ("gpus: [", "gpus: {H100: {usd_per_hour: -1}}", "gpus: {}\nutilization: 1", "7"):
        file.write_text(broken)
        with pytest.raises(SpecError) as caught:
            read_prices(file)
        assert caught.value.where == str(file)
    with pytest.raises(SpecError):
        read_prices(tmp_path / "none.yaml")


def test_without_targets_the_cheapest_still_fits_the_load() -> None:
    best = search(question(), Goal(CHAT, 1), GPUS, PRICES)[0]
    assert math.isinf(Goal(CHAT, 1).ttft_s)
    assert best.replicas == 1


def test_the_managed_price_is_compared_at_the_same_proportion_of_tokens() -> None:
    dear = Prices.model_validate(
        {
            "gpus": {"L4": {"usd_per_hour": 1}},
            "managed": {"usd_per_million_input": 1, "usd_per_million_output": 5},
        }
    )
    assert managed_price(dear, Traffic(900, 100)) == pytest.approx(1.4)
    assert managed_price(dear, Traffic(100, 900)) == pytest.approx(4.6)
    # Half the load on the same GPUs: every token costs twice as much; people cost alike.
    full = cost(dear, "L4", 1, CHAT, 2)
    half = cost(dear.model_copy(update={"utilisation": 0.5}), "L4", 1, CHAT, 2)
    assert half.million == pytest.approx(2 * full.million)
