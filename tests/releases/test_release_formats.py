"""Which number formats compute where: verdicts, reasons and what to take instead."""

from __future__ import annotations

import itertools

import pytest

from toolkit.releases import Combination, Verdict, known_releases, release

HOPPER, AMPERE, ADA, BLACKWELL = (9, 0), (8, 0), (8, 9), (10, 0)


def verdict(
    weights: str, kv: str, capability: tuple[int, int], runtime: str, version: str = "1.2.1"
) -> Verdict:
    return release(version).supports(
        weights=weights,  # type: ignore[arg-type]
        kv=kv,  # type: ignore[arg-type]
        compute_capability=capability,
        runtime=runtime,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("weights", "kv", "capability", "runtime"),
    [
        ("fp8", "fp8", HOPPER, "tensorrt"),
        ("fp8", "fp8", HOPPER, "pytorch"),
        ("fp8", "none", ADA, "pytorch"),
        ("int4_awq", "none", AMPERE, "pytorch"),
        ("int8_sq", "int8", AMPERE, "tensorrt"),
        ("nvfp4", "fp8", BLACKWELL, "tensorrt"),
        ("fp8", "nvfp4", BLACKWELL, "pytorch"),
        ("none", "none", (12, 0), "pytorch"),
    ],
)
def test_documented_combinations_work(
    weights: str, kv: str, capability: tuple[int, int], runtime: str
) -> None:
    found = verdict(weights, kv, capability, runtime)
    assert found == Verdict(True)


@pytest.mark.parametrize(
    ("weights", "kv", "capability", "runtime", "reason"),
    [
        ("fp8", "none", AMPERE, "pytorch", "no fp8 weights on compute capability 8.0 (Ampere)"),
        ("nvfp4", "none", HOPPER, "pytorch", "no nvfp4 weights on compute capability 9.0"),
        ("int8_sq", "none", HOPPER, "pytorch", "the pytorch runtime has no int8_sq weights"),
        ("fp8", "int8", HOPPER, "pytorch", "no int8 KV cache"),
        ("fp8", "nvfp4", HOPPER, "pytorch", "no nvfp4 KV cache on compute capability 9.0"),
        ("nvfp4", "nvfp4", BLACKWELL, "pytorch", "KV cache works with fp8 weights only"),
        ("none", "none", (7, 5), "pytorch", "compute capability 7.5 is not among those"),
    ],
)
def test_what_does_not_work_is_said_in_words(
    weights: str, kv: str, capability: tuple[int, int], runtime: str, reason: str
) -> None:
    found = verdict(weights, kv, capability, runtime)
    assert not found.ok
    assert reason in found.reason


@pytest.mark.parametrize("capability", [(10, 0), (10, 3)])
def test_engines_on_data_centre_blackwell_have_no_integers(capability: tuple[int, int]) -> None:
    """tensorrt_llm/builder.py raises there, whatever the support matrix says of Blackwell."""
    for known in known_releases():
        for row in known.formats:
            if row.runtime != "tensorrt" or row.capability != capability:
                continue
            assert not {"int4_awq", "w4a8_awq", "int8_sq"} & set(row.weights), known.version
            assert "int8" not in row.kv_cache
            assert {"fp8", "nvfp4"} <= set(row.weights)
    found = verdict("int4_awq", "none", capability, "tensorrt")
    assert found.alternatives[0] == Combination("pytorch", "int4_awq", "none")


def test_the_nearest_alternative_changes_least() -> None:
    int8 = verdict("int8_sq", "none", HOPPER, "pytorch")
    assert int8.alternatives[0] == Combination("tensorrt", "int8_sq", "none")
    ampere = verdict("fp8", "none", AMPERE, "pytorch")
    assert ampere.alternatives[0] == Combination("pytorch", "int4_awq", "none")
    late = verdict("int8_sq", "none", HOPPER, "tensorrt", "1.4.0rc1")
    assert "has no tensorrt runtime" in late.reason
    assert late.alternatives[0] == Combination("pytorch", "fp8", "none")
    assert str(late.alternatives[0]) == "fp8 weights with none KV cache (pytorch)"


def test_an_unknown_gpu_has_no_alternatives() -> None:
    found = verdict("none", "none", (7, 0), "tensorrt")
    assert not found.ok
    assert found.alternatives == ()
    assert "8.0, 8.6, 8.9, 9.0" in found.reason


def test_every_alternative_of_every_question_works() -> None:
    weights = ("none", "fp8", "int4_awq", "w4a8_awq", "int8_sq", "nvfp4")
    caches = ("none", "fp8", "int8", "nvfp4")
    for known in known_releases():
        capabilities = {row.capability for row in known.formats}
        for asked in itertools.product(weights, caches, capabilities, ("tensorrt", "pytorch")):
            found = verdict(*asked, version=known.version)
            assert found.ok != bool(found.reason)
            assert found.ok or found.alternatives
            for other in found.alternatives:
                again = verdict(
                    other.weights, other.kv_cache, asked[2], other.runtime, known.version
                )
                assert again.ok, (known.version, asked, other)


def test_what_has_a_caution_is_not_the_first_advice() -> None:
    found = verdict("fp8", "fp8", AMPERE, "pytorch").alternatives
    first = found[0]
    assert (first.weights, first.kv_cache) == ("int4_awq", "none")
    cautious = [
        verdict(each.weights, each.kv_cache, AMPERE, each.runtime).caution is not None
        for each in found
    ]
    assert cautious == sorted(cautious)


def test_what_fails_in_the_field_is_a_caution() -> None:
    assert "17052" in str(verdict("nvfp4", "none", (12, 0), "pytorch").caution)
    assert "Ampere" in str(verdict("none", "fp8", AMPERE, "pytorch").caution)
    assert verdict("fp8", "none", (12, 0), "pytorch").caution is None


def test_weights_as_they_are_work_wherever_a_release_runs() -> None:
    for known in known_releases():
        assert {row.runtime for row in known.formats} == set(known.runtimes)
        for row in known.formats:
            assert row.refusal("none", "none") is None
            assert row.name == f"{row.runtime}.{row.capability[0]}.{row.capability[1]}"
