"""Fleets planned whole: places, overrides that make them real, and refusals that help."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from fleet_files import write_fleet

from toolkit.checkpoint.architecture import read_architecture
from toolkit.doctor.gpus import FoundGpu
from toolkit.errors import SpecError, UnsupportedError
from toolkit.pipeline import planning as single
from toolkit.pipeline.fleet import FleetPlan, PlannedModel, machine, plan_fleet
from toolkit.pipeline.fleet.sizing import Shapes
from toolkit.spec.fleet import Member, load_fleet
from toolkit.spec.loading import load
from toolkit.spec.models import Deployment

MIB, GIB = 2**20, 2**30
ALL = "models: [chat.yaml, large.yaml, {file: small.yaml, replicas: 2}]\n"


def shapes_of(member: Member) -> Shapes:
    return Shapes(read_architecture(Path(member.deployment.model.source)))


def plan(folder: Path, text: str, *overrides: str) -> FleetPlan:
    loaded = load_fleet(write_fleet(folder, text), overrides=overrides)
    return plan_fleet(loaded, shapes_of, overrides=overrides)


def model(planned: FleetPlan, name: str) -> PlannedModel:
    return next(each for each in planned.models if each.name == name)


def as_deployed(found: PlannedModel) -> Deployment:
    """What the printed command deploys."""
    program, verb, file, *rest = shlex.split(found.command)
    assert (program, verb, file, rest[::2]) == (
        *("toolkit", "deploy", str(found.path)),
        ["--set"] * (len(rest) // 2),
    )
    return load(Path(file), overrides=rest[1::2]).deployment


def test_the_commands_make_the_packing_real(tmp_path: Path) -> None:
    planned = plan(tmp_path, ALL + "gpus: {type: h100, count: 4}\n")
    made = {each.name: as_deployed(each) for each in planned.models}
    assert {name: each.serving.gpus for name, each in made.items()} == {
        "chat": (2,),
        "large": (0, 1),
        "small": (2, 3),
    }
    assert {each.serving.gpu for each in made.values()} == {"H100"}
    assert made["small"].serving.replicas == 2
    assert not any(each.gateway.enabled for each in made.values())
    ports = [port for each in made.values() for port in each.serving.ports.model_dump().values()]
    assert len(set(ports)) == 9
    assert ports[:3] == [8000, 8001, 8002]
    # large has its GPUs to itself: its file's own cache setting holds.
    assert made["large"].engine.kv_cache.size is None
    for use in planned.packing.gpus:
        for share in use.shares:
            size = made[share.name].engine.kv_cache.size
            assert size is None or size == share.pool
            assert model(planned, share.name).kv_tokens == share.tokens
    assert planned.gateway == f"toolkit gateway {tmp_path / 'fleet.yaml'}"
    assert any("one after the other" in note for note in planned.notes)


def test_caches_on_a_shared_gpu_hold_what_the_single_sum_says(tmp_path: Path) -> None:
    planned = plan(tmp_path, "models: [chat.yaml, small.yaml]\ngpus: {type: H100}\n")
    (use,) = planned.packing.gpus
    assert [share.name for share in use.shares] == ["chat", "small"]
    for share in use.shares:
        found = model(planned, share.name)
        arch = shapes_of(load_fleet(tmp_path / "fleet.yaml").members[0]).arch
        if share.name == "small":
            arch = read_architecture(tmp_path / "model-1b")
        alone = single.make_plan(load(found.path, overrides=found.overrides).deployment, arch)
        assert alone.memory is not None
        assert (alone.memory.used, alone.memory.pool) == (share.fixed, share.pool)
        assert alone.memory.kv_tokens == share.tokens
    assert use.left >= 0


def test_overrides_reach_the_sums_and_the_commands(tmp_path: Path) -> None:
    text = "models: [small.yaml]\ngpus: {type: L4}\n"
    wide = plan(tmp_path, text)
    less = plan(tmp_path, text, "engine.kv_cache.free_memory_fraction=0.5")
    assert model(less, "small").kv_tokens < model(wide, "small").kv_tokens
    assert as_deployed(model(less, "small")).engine.kv_cache.free_memory_fraction == 0.5
    assert less.gateway.endswith("--set engine.kv_cache.free_memory_fraction=0.5")


def test_an_open_runtime_is_one_of_gpus_where_the_fleet_names_some(tmp_path: Path) -> None:
    found = model(plan(tmp_path, "models: [any.yaml]\ngpus: {type: L4}\n"), "any")
    assert (found.runtime, found.gpus) == ("pytorch", (0,))
    assert as_deployed(found).serving.gpu == "L4"


def test_cpu_models_share_the_memory_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.capacity.host.available_memory", lambda: 32 * GIB)
    (tmp_path / "twin.yaml").write_text(
        "name: twin\nmodel: {source: ./model-1b}\nengine: {runtime: openvino}\n"
        "serving: {ports: {http: 8000, grpc: 0, metrics: 9100}}\n"
    )
    planned = plan(tmp_path, "models: [cpu.yaml, twin.yaml, chat.yaml]\ngpus: {type: H100}\n")
    assert planned.host is not None
    (use,) = planned.host.gpus
    assert {share.name for share in use.shares} == {"cpu", "twin"}
    assert use.used <= 32 * GIB
    twin = as_deployed(model(planned, "twin"))
    assert twin.engine.kv_cache.size == planned.host.grant("twin").pool
    assert twin.serving.ports.model_dump() == {"http": 8010, "grpc": 0, "metrics": 9110}
    assert model(planned, "twin").gpus == ()
    assert not any(each.startswith("serving.gpu") for each in model(planned, "twin").overrides)

    monkeypatch.setattr("toolkit.capacity.host.available_memory", lambda: 12 * GIB)
    with pytest.raises(UnsupportedError, match=r"has no place: .* are needed beside the others"):
        plan(tmp_path, "models: [cpu.yaml, twin.yaml]\n")


def test_a_cpu_model_has_no_replicas(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cpu runs on the CPU") as caught:
        plan(tmp_path, "models:\n  - {file: cpu.yaml, replicas: 2}\n")
    assert caught.value.where == f"{tmp_path / 'fleet.yaml'}:2:5"


CARD = FoundGpu(0, "a", "NVIDIA H100 80GB HBM3", 81_559 * MIB, 0, (9, 0))


def test_without_gpus_in_the_file_the_machine_s_own_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = (CARD, FoundGpu(3, "b", *[getattr(CARD, f) for f in ("name", "memory", "used",
             "compute_capability")]))  # fmt: skip
    for module in (machine, single):
        monkeypatch.setattr(module, "read_gpus", lambda: cards)
    monkeypatch.setattr("toolkit.capacity.host.available_memory", lambda: 32 * GIB)
    planned = plan(tmp_path, "models: [large.yaml, any.yaml]\n", "engine.limits.max_batch_size=4")
    assert model(planned, "large").gpus == (0, 3)
    # As in a plan of its own: an open runtime without a GPU in the file is the CPU's.
    assert model(planned, "any").runtime == "openvino"


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ((), "this machine has none"),
        ((CARD, FoundGpu(1, "b", "NVIDIA L4", 23_034 * MIB, 0, (8, 9))), "not all alike"),
    ],
)
def test_gpus_that_are_not_known_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: tuple[FoundGpu, ...], reason: str
) -> None:
    for module in (machine, single):
        monkeypatch.setattr(module, "read_gpus", lambda: cards)
    with pytest.raises(SpecError, match=reason) as caught:
        plan(tmp_path, "models: [chat.yaml]\n")
    assert "gpus: {type: H100, count: 4}" in (caught.value.hint or "")


def refused(folder: Path, text: str) -> UnsupportedError:
    with pytest.raises(UnsupportedError) as caught:
        plan(folder, text)
    return caught.value


def test_a_model_that_fits_nowhere_is_named_with_its_sum(tmp_path: Path) -> None:
    error = refused(tmp_path, "models: [large.yaml, chat.yaml]\ngpus: {type: L4, count: 8}\n")
    assert error.message.startswith("large: ")
    assert error.where == f"{tmp_path / 'large.yaml'}, model.source"
    assert any(line.startswith("weights") for line in error.details)


def test_missing_whole_gpus_are_counted(tmp_path: Path) -> None:
    error = refused(
        tmp_path, "models: [{file: large.yaml, replicas: 3}]\ngpus: {type: H100, count: 5}\n"
    )
    assert error.message == (
        "large, replica 3 of 3, has no place: it takes 2 whole GPUs, and 1 of 5 x H100 is free: "
        "1 missing"
    )
    assert error.hint == "what would fit: replicas: 2 of large; or 6 GPUs"
    assert error.where == f"{tmp_path / 'fleet.yaml'}:1:10"


def plain(folder: Path, *names: str, more: str = "") -> None:
    """Deployment files of an 8B model in 16 bit."""
    for name in names:
        (folder / f"{name}.yaml").write_text(
            f"name: {name}\nmodel: {{source: ./model-8b}}\nengine: {{runtime: pytorch}}\n{more}"
        )


PAIR = "models: [one.yaml, two.yaml]\ngpus: {type: %s, count: %d}\n"


def test_what_would_fit_really_does(tmp_path: Path) -> None:
    plain(tmp_path, "one", "two")
    error = refused(tmp_path, PAIR % ("RTX 5090", 1))
    assert error.message.startswith("two has no place: it needs 19.")
    assert "7.0 GiB are missing on the GPU with the most room of 1 x RTX 5090" in error.message
    assert error.details[0].startswith("GPU 0: one 18.8 GiB + 0.5 GiB KV cache; 12.5 GiB of 31.8")
    assert error.hint == (
        "what would fit: quantization.weights: fp8 for two, one; or 2 GPUs; or 1 x A100-40"
    )
    assert plan(tmp_path, PAIR % ("RTX 5090", 2)).models
    assert plan(tmp_path, PAIR % ("A100-40", 1)).models
    plain(tmp_path, "one", "two", more="quantization: {weights: fp8}\n")
    assert plan(tmp_path, PAIR % ("RTX 5090", 1)).models


def test_another_format_of_one_model_is_enough_where_it_makes_room(tmp_path: Path) -> None:
    plain(tmp_path, "one", "two", "three")
    text = "models: [one.yaml, two.yaml, three.yaml]\ngpus: {type: A100-40}\n"
    error = refused(tmp_path, text)
    assert error.message.startswith("two has no place")
    # An A100 has no FP8.
    assert "what would fit: quantization.weights: int4_awq for two, one; or" in (error.hint or "")
    plain(tmp_path, "one", more="quantization: {weights: int4_awq}\n")
    error = refused(tmp_path, text)
    assert error.message.startswith("one has no place")
    assert "what would fit: quantization.weights: int4_awq for two; or" in (error.hint or "")
    plain(tmp_path, "two", more="quantization: {weights: int4_awq}\n")
    assert plan(tmp_path, text).models
