"""The tables, compared with upstream's files as they were read a second time (``upstream/``).

``upstream`` keeps names, types and defaults in upstream's own words and names the commit they come
from. Nothing there is derived from the tables, so a slip in a table differs from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.releases import Release, Tensor, TritonModel, known_releases, known_versions

UPSTREAM = Path(__file__).parent / "upstream"
RELEASES = known_releases()
ENGINE_RELEASES = tuple(known for known in RELEASES if "tensorrt" in known.runtimes)
FLAG_KINDS = {"int": "int", "flag": "bool", "str": "text", "str[]": "texts",
              "enum": "choice", "enable|disable": "choice"}  # fmt: skip

every_release = pytest.mark.parametrize("known", RELEASES, ids=lambda known: known.version)
every_engine_release = pytest.mark.parametrize(
    "known", ENGINE_RELEASES, ids=lambda known: known.version
)


def upstream(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((UPSTREAM / f"{name}.json").read_text(encoding="utf-8"))
    assert content["source"]
    return content


def in_release(facts: dict[str, str], known: Release) -> dict[str, str]:
    """Those that the release has, without the words ``since VERSION``."""
    versions = known_versions()
    found = {}
    for name, fact in facts.items():
        said, _, since = fact.partition("since ")
        if not since or versions.index(since) <= versions.index(known.version):
            found[name] = said.strip()
    return found


# trtllm-build


def as_upstream_has_it(group: str, fact: dict[str, Any]) -> dict[str, Any]:
    choices = fact.get("choices", [])
    if fact["type"] == "enable|disable":
        choices = ["enable", "disable"]
    kind = FLAG_KINDS[fact["type"]]
    return {
        "group": "speculation" if group == "speculative" else group,
        "kind": "choice" if choices and kind == "text" else kind,
        "default": fact.get("default"),
        "choices": choices,
        "aliases": fact.get("aliases", []),
    }


@every_engine_release
def test_build_flags_are_those_of_build_py(known: Release) -> None:
    facts = upstream("build_flags")
    wanted = {
        name: as_upstream_has_it(group, fact)
        for group, flags in facts["flags"].items()
        for name, fact in flags.items()
    }
    found = {
        flag.name: flag.model_dump(mode="json", include=set(wanted["max_seq_len"]))
        for flag in known.build_flags
    }
    older = {flag.name for flag in known.build_flags if flag.group == "auto_parallel"}
    assert older == (set() if known.version >= "1.2" else set(facts["gone_with_1.2"]))
    assert {name: flag for name, flag in found.items() if name not in older} == wanted


@every_engine_release
def test_what_blackwell_refuses_is_what_build_py_refuses(known: Release) -> None:
    wanted = dict.fromkeys(upstream("build_flags")["refused_on_10.0"], ((10, 0),))
    assert {f.name: f.refused_on for f in known.build_flags if f.refused_on} == wanted


# Triton models


def words(tensor: Tensor, direction: str) -> str:
    dtype = tensor.dtype
    said = [dtype, str(list(tensor.dims))]
    if tensor.optional and direction == "inputs":  # outputs have no such word upstream
        said.append("optional")
    said += ["ragged"] * tensor.ragged + ["scalar"] * tensor.scalar
    return " ".join(said)


def tensors_differ(model: TritonModel, facts: dict[str, Any], known: Release) -> list[str]:
    wrong = []
    for direction in ("inputs", "outputs"):
        wanted = in_release(facts[direction], known)
        found = {tensor.name: tensor for tensor in getattr(model, direction)}
        wrong += [f"{direction} {name}" for name in sorted(set(wanted) ^ set(found))]
        for name in sorted(set(wanted) & set(found)):
            chosen = wanted[name].startswith("${")
            text = words(found[name], direction)
            if chosen != bool(found[name].dtype_choices):
                wrong.append(f"{direction} {name}: is the type chosen at rendering?")
            elif text.split()[chosen:] != wanted[name].split()[chosen:]:
                wrong.append(f"{direction} {name}: {text}, upstream {wanted[name]}")
    return wrong


@every_engine_release
@pytest.mark.parametrize("name", sorted(upstream("triton_models")["models"]))
def test_models_of_the_engine_path_are_those_of_upstreams_config_pbtxt(
    known: Release, name: str
) -> None:
    facts = upstream("triton_models")["models"][name]
    model = known.triton_model(name)
    assert tensors_differ(model, facts, known) == []
    if facts["backend"].startswith("${"):
        assert model.backend in model.backend_choices
    else:
        assert (model.backend, model.backend_choices) == (facts["backend"], ())
    steps = [step.model_dump(mode="json") for step in model.steps]
    assert steps == facts.get("steps", [])
    assert model.batched


@every_engine_release
@pytest.mark.parametrize("name", sorted(upstream("triton_models")["models"]))
def test_parameters_of_the_engine_path_are_those_of_upstreams_config_pbtxt(
    known: Release, name: str
) -> None:
    facts = upstream("triton_models")["models"][name].get("parameters", {})
    parameters = known.triton_model(name).parameters
    filled = {
        parameter.name: f"${{{parameter.variable or parameter.name}}}"
        for parameter in parameters
        if facts.get(parameter.name, "").startswith("${")
    }
    written = {p.name: p.fixed or p.default for p in parameters if p.name not in filled}
    assert filled | written == facts


CHOSEN_TYPES = {
    "${logits_datatype}": {"TYPE_FP32", "TYPE_FP16"},
    "${encoder_input_features_data_type}": {"TYPE_FP16", "TYPE_BF16"},
    "${prompt_embedding_table_data_type}": {"TYPE_FP16"},
}
"""What upstream's documentation fills the variable with."""


@every_engine_release
def test_types_chosen_at_rendering_are_those_that_upstream_names(known: Release) -> None:
    for name, facts in upstream("triton_models")["models"].items():
        for direction in ("inputs", "outputs"):
            for tensor in getattr(known.triton_model(name), direction):
                variable = facts[direction][tensor.name].split()[0]
                if variable in CHOSEN_TYPES:
                    assert CHOSEN_TYPES[variable] <= set(tensor.dtype_choices), tensor.name
                    assert tensor.dtype in CHOSEN_TYPES[variable], tensor.name


@every_release
def test_the_llm_api_model_is_that_of_upstreams_config_pbtxt_and_model_yaml(known: Release) -> None:
    facts = upstream("llm_api_model")
    model = known.triton_model("tensorrt_llm", "pytorch")
    assert tensors_differ(model, facts, known) == []
    settings = {s.name: f"{s.kind} {s.default or ''}".strip() for s in model.settings}
    assert settings == in_release(facts["settings"], known)
    assert {p.name for p in model.parameters} == set(in_release(facts["parameters"], known))
    assert model.backend == facts["backend"]
    assert not model.batched


# Metrics and images


@every_release
def test_metrics_are_those_of_the_reporter_and_of_the_collector(known: Release) -> None:
    facts = upstream("metrics")
    engine = "tensorrt" in known.runtimes
    backend = {
        family.name: {"kind": family.kind, "label": family.label, "values": list(family.values)}
        for family in known.metrics
        if family.exporter == "triton-tensorrtllm-backend"
    }
    assert backend == (facts["backend"] if engine else {})
    serve = {family.name for family in known.metrics if family.exporter == "trtllm-serve"}
    wanted = facts["serve_first"] if engine else facts["serve"]
    assert serve == {facts["serve_prefix"] + name for name in wanted}
    assert len(backend) + len(serve) == len(known.metrics), "every family has an exporter"


def test_what_is_counted_is_a_counter() -> None:
    for known in RELEASES:
        for family in known.metrics:
            if family.exporter == "trtllm-serve" and family.name.endswith("_total"):
                assert family.kind == "counter", family.name
            elif family.name.endswith("_time_seconds"):
                assert family.kind == "histogram", family.name


@every_release
def test_images_are_those_of_the_compatibility_table(known: Release) -> None:
    facts = upstream("containers")["images"]
    rows = {triton: row for triton, row in facts.items() if row["tensorrt_llm"] == known.version}
    found = {
        image.triton: {
            "tag": image.name,
            "tensorrt_llm": known.version,
            **image.model_dump(include={"tensorrt", "cuda", "driver", "torch", "python"}),
        }
        for image in known.containers
    }
    assert found == rows


OLDER_DRIVERS = (470, 525, 535, 545)
"""Branches that Triton's release notes name for data-centre GPUs, up to 26.02."""


def test_drivers_are_those_of_the_release_notes() -> None:
    for known in RELEASES:
        for image in known.containers:
            older = OLDER_DRIVERS if image.triton <= "26.02" else ()
            assert image.forward_compatible == older, image.name
            branch = int(image.driver.partition(".")[0])
            thirteen = image.cuda.startswith("13.")  # which any driver from 580 on runs
            assert image.driver_minimum == (580 if thirteen else branch), image.name


@every_release
def test_the_llm_api_speculates_in_four_ways(known: Release) -> None:
    methods = [each.method for each in known.speculation_methods if each.runtime == "pytorch"]
    assert methods == ["draft_model", "ngram", "eagle3", "mtp"]


# Number formats

MARKS = {"fp8": "FP8 per tensor", "nvfp4": "NVFP4", "int4_awq": "W4A16 AWQ", "w4a8_awq": "W4A8 AWQ"}
KV_MARKS = {"fp8": "FP8 KV", "nvfp4": "NVFP4 KV"}
ROWS = {(8, 0): "sm80/86 Ampere", (8, 6): "sm80/86 Ampere", (8, 9): "sm89 Ada",
        (9, 0): "sm90 Hopper", (10, 0): "sm100/103 Blackwell", (10, 3): "sm100/103 Blackwell",
        (12, 0): "sm120 Blackwell"}  # fmt: skip
NOT_BEFORE_1_2 = {"int4_awq", "w4a8_awq", "nvfp4 kv"}
"""What the pages of 1.0 and 1.1 do not mark on data-centre Blackwell."""


@every_release
def test_formats_of_the_llm_api_are_those_of_the_quantization_page(known: Release) -> None:
    facts = upstream("number_formats")
    rows = {row.capability: row for row in known.formats if row.runtime == "pytorch"}
    unnamed = {(10, 3)} if known.version == "1.0.0" else set()
    assert set(rows) == set(ROWS) - unnamed
    for capability, row in rows.items():
        marks = dict(zip(facts["columns"], facts["pytorch"][ROWS[capability]], strict=True))
        less = NOT_BEFORE_1_2 if capability[0] == 10 and known.version < "1.2" else set()
        weights = {name for name, mark in MARKS.items() if marks[mark]} - less
        caches = {
            name for name, mark in KV_MARKS.items() if marks[mark] and f"{name} kv" not in less
        }
        assert set(row.weights) == {"none"} | weights, row.name
        assert set(row.kv_cache) == {"none"} | caches, row.name
        assert row.architecture in ("Ada Lovelace", ROWS[capability].split()[1]), row.name
        assert (row.architecture == "Ada Lovelace") == (capability == (8, 9)), row.name
