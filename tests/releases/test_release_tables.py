"""Every table is complete, consistent in itself, and says where it was read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pytest
from pydantic import JsonValue

from toolkit.releases import Field, Release, TritonModel, known_releases, known_versions
from toolkit.releases.loading import SECTIONS, table_text

RELEASES = known_releases()
ENGINE_RELEASES = tuple(known for known in RELEASES if "tensorrt" in known.runtimes)

every_release = pytest.mark.parametrize("known", RELEASES, ids=lambda known: known.version)
every_engine_release = pytest.mark.parametrize(
    "known", ENGINE_RELEASES, ids=lambda known: known.version
)


def repeated(names: Iterable[str]) -> list[str]:
    found = list(names)
    return sorted({name for name in found if found.count(name) > 1})


def fields(known: Release) -> Iterator[tuple[str, Field]]:
    for config in known.llm_args.classes:
        for field in config.fields:
            yield f"{config.name}.{field.name}", field


def test_the_releases_asked_for_are_known() -> None:
    assert {"1.0.0", "1.1.0", "1.2.1"} <= set(known_versions())
    assert any(not known.stable for known in RELEASES)


@every_release
def test_a_table_bears_the_name_of_its_folder_and_is_frozen(known: Release) -> None:
    assert known.version in known_versions()
    assert known.llm_args.version == known.version
    with pytest.raises(ValueError, match="frozen"):
        known.version = "9.9.9"  # type: ignore[misc]
    assert hash(known.runtimes)


@every_release
def test_every_name_stands_once(known: Release) -> None:
    assert not repeated(flag.name for flag in known.build_flags)
    assert not repeated(alias for flag in known.build_flags for alias in flag.aliases)
    assert not repeated(config.name for config in known.llm_args.classes)
    for config in known.llm_args.classes:
        names = [name for f in config.fields for name in (f.name, *f.aliases)]
        assert not repeated(names), config.name
    for model in known.triton_models:
        assert not repeated(p.name for p in (*model.parameters, *model.settings)), model.name
        assert not repeated(t.name for t in model.inputs), model.name
        assert not repeated(t.name for t in model.outputs), model.name
    for entries in (
        known.containers,
        known.speculation_methods,
        known.formats,
        known.triton_models,
        known.metrics,
        known.terms,
    ):
        assert not repeated(entry.name for entry in entries)


@every_release
def test_build_flags_take_their_own_defaults(known: Release) -> None:
    for flag in known.build_flags:
        assert (flag.kind == "choice") == bool(flag.choices) or flag.kind == "texts", flag.name
        if flag.default is not None:
            assert flag.problem(flag.default) is None, flag.name
        for choice in flag.choices:
            value: JsonValue = [choice] if flag.kind == "texts" else choice
            assert flag.arguments(value) == (flag.option, choice)
        for other in flag.clashes_with:
            assert known.build_flag(other.partition("=")[0])


@every_release
def test_llm_fields_take_their_own_defaults(known: Release) -> None:
    for name, field in fields(known):
        assert (field.kind == "choice") == bool(field.choices) or field.kind == "texts", name
        assert not (field.required and field.default is not None), name
        if field.required:
            assert field.problem(None) == (None if field.optional else "cannot be null"), name
        elif field.default is not None or field.optional:
            assert field.problem(field.default) is None, name


@every_release
def test_llm_fields_name_classes_that_are_there(known: Release) -> None:
    reached = {"TorchLlmArgs"}
    for name, field in fields(known):
        assert not field.config or field.kind == "config", name
        for config in field.config:
            assert known.llm_args.config_class(config).fields, name
            reached.add(config)
    assert reached == {config.name for config in known.llm_args.classes}


@every_release
def test_classes_that_share_a_field_can_be_told_apart(known: Release) -> None:
    for name, field in fields(known):
        tags = [known.llm_args.config_class(config).tag for config in field.config]
        assert tags.count(None) <= 1, name
        assert len(set(tags)) == len(tags), name


@every_release
def test_triton_parameters_parse_their_own_defaults(known: Release) -> None:
    for model in known.triton_models:
        for parameter in (*model.parameters, *model.settings):
            name = f"{model.name}.{parameter.name}"
            assert (parameter.kind == "choice") == bool(parameter.choices), name
            for text in (parameter.default, parameter.fixed, *parameter.choices):
                assert text is None or parameter.problem(text) is None, name


@every_release
def test_tensors_have_types_and_shapes_of_triton(known: Release) -> None:
    types = re.compile(r"TYPE_(BOOL|STRING|U?INT(8|16|32|64)|FP(16|32|64)|BF16)")
    for model in known.triton_models:
        assert model.inputs, model.name
        assert model.outputs, model.name
        for tensor in (*model.inputs, *model.outputs):
            name = f"{model.name}.{tensor.name}"
            assert types.fullmatch(tensor.dtype), name
            assert all(size == -1 or size > 0 for size in tensor.dims), name
            assert not tensor.dtype_choices or tensor.dtype in tensor.dtype_choices, name
            assert not tensor.scalar or tensor.dims == (1,), name


def steps_of(known: Release) -> Iterator[tuple[TritonModel, dict[str, str], bool]]:
    for step in known.triton_model("ensemble").steps:
        model = known.triton_model(step.model)
        yield model, step.input_map, True
        yield model, step.output_map, False


@every_engine_release
def test_ensemble_steps_fit_the_models_that_they_name(known: Release) -> None:
    types: dict[str, str] = {}
    for model, tensors, into in steps_of(known):
        assert tensors, model.name
        for theirs, ours in tensors.items():
            tensor = model.tensor(theirs, "input" if into else "output")
            assert types.setdefault(ours, tensor.dtype) == tensor.dtype, f"{model.name}.{theirs}"
    ensemble = known.triton_model("ensemble")
    for tensor in (*ensemble.inputs, *ensemble.outputs):
        assert types.get(tensor.name, tensor.dtype) == tensor.dtype, tensor.name


@every_engine_release
def test_ensemble_steps_are_fed_by_earlier_steps_or_by_the_client(known: Release) -> None:
    there = {tensor.name for tensor in known.triton_model("ensemble").inputs}
    for model, tensors, into in steps_of(known):
        if into:
            assert set(tensors.values()) <= there, model.name
            needed = {tensor.name for tensor in model.inputs if not tensor.optional}
            assert needed <= set(tensors), model.name
        else:
            there |= set(tensors.values())
    assert {tensor.name for tensor in known.triton_model("ensemble").outputs} <= there


@every_release
def test_every_part_says_where_it_was_read(known: Release) -> None:
    assert set(known.sources) == set(SECTIONS)
    for section, sources in known.sources.items():
        assert sources, section
        assert known.checked(section) in {source.checked for source in sources}
        for source in sources:
            assert source.repository == "this project" or "/" in source.repository, section
            assert source.path, section
            assert source.revision, section
            assert source.page is None or source.page.startswith("https://"), section
            if source.checked == "tag" and source.repository != "this project":
                assert re.fullmatch(r"[0-9a-f]{40}", source.revision), section
                assert source.path.startswith(f"{known.version}/"), section


@every_release
def test_a_table_that_states_differences_has_parts_of_its_own(known: Release) -> None:
    own = {section for section in SECTIONS if table_text(known.version, section) is not None}
    if known.extends is None:
        assert own == set(SECTIONS)
    else:
        assert known.extends in known_versions()
        assert own


@every_release
def test_images_state_what_they_hold(known: Release) -> None:
    for image in known.containers:
        assert image.name.endswith(f":{image.triton}-trtllm-python-py3")
        assert int(image.driver.split(".")[0]) >= image.driver_minimum
        assert all(branch < image.driver_minimum for branch in image.forward_compatible)


@every_release
def test_metrics_have_values_exactly_where_they_have_a_label(known: Release) -> None:
    for family in known.metrics:
        assert bool(family.values) == (family.label is not None), family.name
        assert not repeated(family.values), family.name
