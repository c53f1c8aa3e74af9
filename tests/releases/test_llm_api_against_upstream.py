"""The newest table's LLM API classes, compared with upstream's llm_args.py as it was read apart.

``upstream/llm_api.json`` is of the main branch, some weeks beside the candidate that the table
states; what is known to differ between the two is named here, and nothing else may. What older
releases differ in stands in ``recorded/llm_api.txt``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from toolkit.releases import ConfigClass, Field, newest

FACTS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "upstream/llm_api.json").read_text(encoding="utf-8")
)
KNOWN = newest("pytorch", candidates=True)

BASES = {
    "CudaGraphConfig": ("BaseCudaGraphConfig", "DecodeCudaGraphConfig"),
    "EncodeCudaGraphConfig": ("BaseCudaGraphConfig",),
    "TorchLlmArgs": ("BaseLlmArgs",),
    "Eagle3DecodingConfig": ("DecodingBaseConfig", "EagleDecodingConfig"),
}
ABSTRACT = {"BaseCudaGraphConfig", "DecodeCudaGraphConfig", "DecodingBaseConfig", "BaseLlmArgs"}
NOT_READ = {"BlockReuseConfig"}
"""Classes of the table that the second reading left out."""

ONLY_IN_THE_TABLE = {
    "DFlashDecodingConfig": {"spec_dec_variant", "context_recompute_tail",
                             "skip_ctx_buffer_budget_check"},
}  # fmt: skip
ONLY_UPSTREAM = {
    # Of TensorRT engines; refused by PyTorch.
    "SchedulerConfig": {"dynamic_batch_config"},
    # Seen on main, type and default unread.
    "LoraConfig": {"cuda_graph_specialize_lora"},
}
NOT_TAKEN_APART = {
    "TorchLlmArgs": {"prometheus_metrics_config", "mx_config", "layer_wise_benchmarks_config",
                     "telemetry_config", "gms_config", "sparse_attention_config",
                     "multimodal_config", "sleep_config", "kv_cache_compression_config",
                     "dwdp_config"},
    "KvCacheConfig": {"mamba_state_config"},
}  # fmt: skip
"""Nested classes whose own fields no table holds."""
OTHERWISE = {
    # One runtime is left, and null is refused.
    ("TorchLlmArgs", "backend"): "choice",
    ("TorchLlmArgs", "tokenizer"): "text",
    ("TorchLlmArgs", "attn_backend"): "text",
    # More names than the reading lists: torch's own, or a number of context parallel types.
    ("KvCacheConfig", "dtype"): "text",
    ("KvCacheConfig", "use_kv_cache_manager_v2"): "text",
    ("CpConfig", "cp_type"): "text",
}
MORE_CHOICES = {("DFlashDecodingConfig", "attention_backend"): {"FA4"}}

KINDS = (
    (r"bool", "bool"),
    (r"int(\b.*)?", "int"),
    (r"float(\b.*)?", "float"),
    (r"(?:List|Set)\[int.*\]", "ints"),
    (r"List\[float\]", "floats"),
    (r"List\[List\[int\]\]", "paths"),
    (r"List\[.*\]", "texts"),
    (r"dict.*", "mapping"),
    (r"obj|object", "object"),
    (r"str|str\|Path", "text"),
    (r"Literal\[.*\]", "choice"),
    (r"\w+Config|.* graph config|union", "config"),
    (r"\w[\w-]*(\|\w[\w-]*)+", "choice"),
)


def fields_upstream(name: str) -> dict[str, Any]:
    bases = BASES.get(name, ("DecodingBaseConfig",) if name.endswith("DecodingConfig") else ())
    inherited: dict[str, Any] = {}
    for each in (*bases, name):
        inherited |= FACTS["classes"].get(each, {})
    return {key: fact for key, fact in inherited.items() if key not in ("decoding_type", "mode")}


def kind_of(said: str) -> str:
    plain = said.removesuffix("|None")
    return next(kind for pattern, kind in KINDS if re.fullmatch(pattern, plain))


def choices_of(said: str) -> set[str]:
    inner = re.sub(r"^(?:List|Literal)\[(.*)\]$", r"\1", said.removesuffix("|None"))
    return {each for each in inner.split("|") if each != "None"}


def differs(owner: str, field: Field, fact: dict[str, Any]) -> list[str]:
    said, place = fact["type"], (owner, field.name)
    kind = OTHERWISE.get(place) or kind_of(said)
    if field.name in NOT_TAKEN_APART.get(owner, ()):
        kind = "mapping"
    wrong = [] if field.kind == kind else [f"{field.kind}, upstream {said}"]
    if kind == "choice" and place not in OTHERWISE:
        wanted = choices_of(said) | MORE_CHOICES.get(place, set())
        if set(field.choices) != wanted:
            wrong.append(f"choices {field.choices}, upstream {sorted(wanted)}")
    if field.optional != ("None" in said) and place not in OTHERWISE:
        wrong.append(f"optional {field.optional}, upstream {said}")
    default = {"{}": {}, "pytorch (Torch)": "pytorch"}.get(
        str(fact.get("default")), fact.get("default")
    )
    if field.required != (default == "<required>"):
        wrong.append(f"required {field.required}, upstream {default}")
    elif not field.required and field.default != default:
        wrong.append(f"default {field.default!r}, upstream {default!r}")
    return [f"{owner}.{field.name}: {each}" for each in wrong]


def test_the_classes_are_those_of_llm_args() -> None:
    found = {each.name for each in KNOWN.llm_args.classes}
    assert found - NOT_READ == (set(FACTS["classes"]) - ABSTRACT) | {"CudaGraphConfig"}


@pytest.mark.parametrize(
    "config",
    [each for each in KNOWN.llm_args.classes if each.name not in NOT_READ],
    ids=lambda each: each.name,
)
def test_fields_are_those_of_llm_args(config: ConfigClass) -> None:
    facts = fields_upstream(config.name)
    found = {field.name: field for field in config.fields}
    more = ONLY_IN_THE_TABLE.get(config.name, set()) | (
        # Every method got it between the two readings.
        {"moe_backend"} if config.name.endswith("DecodingConfig") else set()
    )
    assert set(found) - {"mode"} == ((set(facts) - ONLY_UPSTREAM.get(config.name, set())) | more)
    assert [
        wrong
        for name in sorted(set(found) & set(facts))
        for wrong in differs(config.name, found[name], facts[name])
    ] == []


@pytest.mark.parametrize(
    "config",
    [each for each in KNOWN.llm_args.classes if each.tag],
    ids=lambda each: each.name,
)
def test_the_word_that_chooses_a_class_is_upstreams(config: ConfigClass) -> None:
    assert config.tag is not None
    key, word = config.tag
    fact = FACTS["classes"].get(config.name, {}).get(key)
    assert fact is not None
    assert fact["default"] == word


def test_bounds_are_those_of_llm_args() -> None:
    """Where upstream writes one: ``int>=0``, ``int>0``, ``float 0..1``."""
    seen = 0
    for config in KNOWN.llm_args.classes:
        facts = fields_upstream(config.name)
        for field in config.fields:
            said = facts.get(field.name, {}).get("type", "")
            bound = re.match(r"(?:int|float)(>=?)(-?\d+)", said)
            between = re.match(r"(?:int|float) (\d+)\.\.(\d+)", said)
            if bound:
                least = int(bound[2]) + (bound[1] == ">" and field.kind == "int")
                assert field.minimum == least, f"{config.name}.{field.name}"
            elif between:
                limits = (int(between[1]), int(between[2]))
                assert (field.minimum, field.maximum) == limits, f"{config.name}.{field.name}"
            seen += bool(bound or between)
    assert seen > 50
