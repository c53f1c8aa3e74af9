"""Packing models onto GPUs: what must hold for any models, and some machines by hand."""

from __future__ import annotations

import random
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_shapes import LLAMA_8B

from toolkit.capacity import fit
from toolkit.capacity.packing import Misfit, Packing, demand_of, pack
from toolkit.capacity.placing import Demand, Unplaced, place
from toolkit.quantize.check import check
from toolkit.spec.gpus import find_gpu
from toolkit.spec.models import Engine, Quantization

GIB, MIB = 2**30, 2**20
MEMORY = 80 * GIB


def demand(name: str, fixed: float, least: float, most: float, **more: object) -> Demand:
    """Sizes in GiB."""
    values = {
        "name": name,
        "replicas": 1,
        "gpus": 1,
        "fixed": int(fixed * GIB),
        "least": int(least * GIB),
        "most": int(most * GIB),
        "alone": int((MEMORY - fixed * GIB) * 0.9),
        "bytes_per_token": 65536.0,
        "block": 32,
        "fraction": 0.9,
    }
    return Demand(**{**values, **more})  # type: ignore[arg-type]


@st.composite
def demands(draw: st.DrawFn) -> list[Demand]:
    made = []
    for index in range(draw(st.integers(1, 6))):
        fraction = draw(st.sampled_from([0.5, 0.8, 0.9, 1.0]))
        fixed = draw(st.integers(MIB, 60 * GIB))
        alone = int((MEMORY - fixed) * fraction)
        least = draw(st.integers(1, alone))
        sized = draw(st.booleans())
        each = Demand(
            name=f"m{index}",
            replicas=draw(st.integers(1, 4)),
            gpus=draw(st.sampled_from([1, 1, 1, 2, 4])),
            fixed=fixed,
            least=least,
            most=least if sized else least * draw(st.integers(1, 256)),
            alone=least if sized else alone,
            bytes_per_token=draw(st.sampled_from([1024.5, 65536.0, 131072.0])),
            block=draw(st.sampled_from([16, 32, 128])),
            fraction=fraction,
            sized=sized,
        )
        made.append(each)
    return made


NUMBERS = st.sets(st.integers(0, 15), max_size=12).map(lambda found: tuple(sorted(found)))


@settings(max_examples=300, deadline=None)
@given(demands(), NUMBERS)
def test_every_replica_has_its_own_gpus_and_none_is_overcommitted(
    models: list[Demand], numbers: tuple[int, ...]
) -> None:
    packed = pack(models, numbers, MEMORY)
    by_name = {each.name: each for each in models}
    assert tuple(use.gpu for use in packed.gpus) == numbers
    for use in packed.gpus:
        here = [by_name[share.name] for share in use.shares]
        assert use.left >= 0
        assert len({each.name for each in here}) == len(here)
        assert len(here) <= 1 or all(each.gpus == 1 for each in here)
    if isinstance(packed, Misfit):
        check_refusal(packed, models)
        return
    for each in models:
        assert len(packed.grant(each.name).gpus) == each.replicas * each.gpus
        check_grant(packed, each)


def check_grant(packed: Packing, model: Demand) -> None:
    grant = packed.grant(model.name)
    assert len(set(grant.gpus)) == len(grant.gpus)
    mine = [(use, share) for use in packed.gpus for share in use.shares if share.name == model.name]
    assert sorted(grant.gpus) == [use.gpu for use, _ in mine]
    of_replicas = {share.replica: 0 for _, share in mine}
    for use, share in mine:
        of_replicas[share.replica] += 1
        first = share.replica * model.gpus
        assert use.gpu in grant.gpus[first : first + model.gpus]
        assert share.pool >= model.least
        assert share.pool == (model.alone if grant.pool is None else grant.pool)
        assert share.tokens * model.bytes_per_token <= share.pool
        assert share.tokens % model.block == 0
        # Whoever starts last finds this much free, and its fraction of it is its size.
        assert share.pool <= (share.pool + use.left) * model.fraction + 1
    assert set(of_replicas.values()) == {model.gpus}
    shares_one = any(len(use.shares) > 1 for use, _ in mine)
    assert shares_one == (grant.pool is not None)


def check_refusal(refused: Misfit, models: list[Demand]) -> None:
    model = refused.demand
    assert model in models
    assert refused.replica < model.replicas
    if model.gpus > 1:
        assert refused.whole < model.gpus
        assert refused.missing is None
    else:
        assert refused.whole == 0
        assert refused.missing is None or refused.missing > 0


@settings(max_examples=200, deadline=None)
@given(demands(), NUMBERS, st.randoms(use_true_random=False))
def test_the_order_of_the_models_does_not_matter(
    models: list[Demand], numbers: tuple[int, ...], shuffler: random.Random
) -> None:
    packed = pack(models, numbers, MEMORY)
    again = list(models)
    shuffler.shuffle(again)
    assert pack(again, numbers[::-1], MEMORY) == packed


@settings(max_examples=200, deadline=None)
@given(demands())
def test_what_fits_is_placed_on_gpus_of_its_own_where_there_are_enough(
    models: list[Demand],
) -> None:
    enough = sum(each.gpus * each.replicas for each in models)
    assert isinstance(pack(models, range(enough), MEMORY), Packing)


def possible(models: list[Demand], count: int) -> bool:
    """Whether any assignment of single replicas to GPUs holds, all of them tried."""
    for where in product(range(count), repeat=len(models)):
        groups = [
            [m for m, at in zip(models, where, strict=True) if at == gpu] for gpu in range(count)
        ]
        if all(
            len(group) <= 1
            or sum(m.least for m in group)
            <= int((MEMORY - sum(m.fixed for m in group)) * min(m.fraction for m in group))
            for group in groups
        ):
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(5, 45), st.integers(1, 6)), min_size=3, max_size=7),
    st.integers(2, 3),
)
def test_what_some_arrangement_holds_is_never_refused(
    sizes: list[tuple[int, int]], count: int
) -> None:
    models = [
        demand(f"m{index}", fixed, least, 9 * least) for index, (fixed, least) in enumerate(sizes)
    ]
    packed = pack(models, range(count), MEMORY)
    assert isinstance(packed, Packing) == possible(models, count)


def test_an_arrangement_that_first_fit_misses_is_found() -> None:
    sizes = (38, 30, 28, 20, 16, 14)
    models = [demand(f"m{size}", size, 1, 64) for size in sizes]
    # First fit puts 38 with 30, and 28 with 20 and 16: no place for 14.
    assert isinstance(place(models, range(2), MEMORY, 0.0, search=False), Unplaced)
    packed = pack(models, range(2), MEMORY)
    assert isinstance(packed, Packing)
    names = [{share.name for share in use.shares} for use in packed.gpus]
    assert names == [{"m38", "m20", "m16"}, {"m30", "m28", "m14"}]


def test_the_whole_limits_are_preferred_and_the_rest_is_left_alone() -> None:
    models = [demand("a", 20, 1, 16), demand("b", 10, 1, 16)]
    packed = pack(models, range(2), MEMORY)
    assert isinstance(packed, Packing)
    assert packed.level == 1.0
    assert [len(use.shares) for use in packed.gpus] == [2, 0]
    a, b = packed.grant("a"), packed.grant("b")
    assert a.pool == b.pool == int(50 * GIB * 0.9 / 2) // MIB * MIB


def test_caches_that_would_be_cut_short_go_to_gpus_of_their_own() -> None:
    models = [demand("a", 20, 1, 40), demand("b", 10, 1, 40)]
    apart = pack(models, range(2), MEMORY)
    assert isinstance(apart, Packing)
    assert [grant.pool for grant in apart.grants] == [None, None]
    together = pack(models, range(1), MEMORY)
    assert isinstance(together, Packing)
    assert together.level == 0.5


def test_a_cache_of_a_fixed_size_gets_neither_more_nor_less() -> None:
    fixed = demand("b", 10, 7, 7, alone=7 * GIB, sized=True)
    packed = pack([demand("a", 20, 1, 8), fixed], [3], MEMORY)
    assert isinstance(packed, Packing)
    assert packed.grant("b").pool == 7 * GIB
    assert packed.grant("a").pool == int(50 * GIB * 0.9) - 7 * GIB


def test_whole_gpus_come_first_and_stay_whole() -> None:
    models = [
        demand("wide", 40, 1, 20, gpus=2, replicas=2),
        demand("small", 5, 1, 2, replicas=2),
        demand("tiny", 2, 1, 2),
    ]
    packed = pack(models, range(6), MEMORY)
    assert isinstance(packed, Packing)
    assert packed.grant("wide").gpus == (0, 1, 2, 3)
    assert packed.grant("small").gpus == (4, 5)
    assert packed.grant("tiny").gpus == (4,)
    # One size for both replicas, whether they share or not.
    pools = {share.pool for use in packed.gpus for share in use.shares if share.name == "small"}
    assert pools == {packed.grant("small").pool}


def test_a_refusal_says_what_is_missing() -> None:
    models = [demand("a", 50, 1, 20), demand("b", 30, 1, 20)]
    refused = pack(models, range(1), MEMORY)
    assert isinstance(refused, Misfit)
    assert (refused.demand.name, refused.replica, refused.needed) == ("b", 0, 31 * GIB)
    assert refused.missing == pytest.approx(2 * GIB / 0.9, abs=2)
    assert [share.name for share in refused.gpus[0].shares] == ["a"]
    twice = pack([demand("a", 5, 1, 2, replicas=2)], range(1), MEMORY)
    assert isinstance(twice, Misfit)
    assert (twice.replica, twice.missing) == (1, None)


def test_replicas_of_one_size_are_packed_as_tightly_as_they_come() -> None:
    models = [demand(f"m{index}", 10, 1, 1) for index in range(14)]
    packed = pack(models, range(2), MEMORY)
    assert isinstance(packed, Packing)
    assert [len(use.shares) for use in packed.gpus] == [7, 7]
    names = [share.name for use in packed.gpus for share in use.shares]
    assert all(one < other for one, other in pairwise(names[:7]))


def test_a_demand_is_the_memory_sum_s() -> None:
    gpu = find_gpu("H100")
    engine = Engine.model_validate({"runtime": "pytorch", "limits": {"max_batch_size": 16}})
    resolved = check(LLAMA_8B, Quantization(weights="fp8", kv_cache="fp8"))
    plan = fit(engine, resolved, LLAMA_8B, gpu, runtime="pytorch")
    made = demand_of("chat", plan, engine, replicas=2, gpus=1)
    assert (made.fixed, made.alone) == (plan.used, plan.pool)
    assert made.least == 4096 * 32 * 8 * 128 * 2
    assert made.most == 16 * made.least
    assert made.tokens(made.alone) == plan.kv_tokens
    sized = engine.model_copy(
        update={"kv_cache": engine.kv_cache.model_copy(update={"size": 4 * GIB})}
    )
    plan = fit(sized, resolved, LLAMA_8B, gpu, runtime="pytorch")
    made = demand_of("chat", plan, sized, replicas=2, gpus=1)
    assert (made.least, made.most, made.alone, made.sized) == (4 * GIB, 4 * GIB, 4 * GIB, True)


def test_a_fixed_cache_beyond_its_fraction_takes_a_gpu_and_no_more() -> None:
    # All of a GPU by its own size, where the fraction would ask for more than there is.
    sizes = (38, 30, 28, 20, 16, 14)
    models = [demand(f"m{size}", size, 1, 64) for size in sizes]
    full = demand("full", 10, 70, 70, alone=70 * GIB, sized=True)
    packed = pack([*models, full], range(3), MEMORY)
    assert isinstance(packed, Packing)
    assert [share.name for share in packed.gpus[0].shares] == ["full"]
