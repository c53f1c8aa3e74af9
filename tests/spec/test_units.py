"""Sizes and durations: what people write, what the code gets, what people read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from toolkit.spec.units import (
    Duration,
    PositiveDuration,
    PositiveSize,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (1536, 1536),
        ("0B", 0),
        ("4GiB", 4 * 2**30),
        ("4 GiB", 4 * 2**30),
        (" 512MiB ", 512 * 2**20),
        ("10GB", 10**10),
        ("1.5kib", 1536),
        ("0.1TB", 10**11),
        ("8388607TiB", 8388607 * 2**40),
    ],
)
def test_sizes_are_bytes(written: int | str, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written",
    [
        *(True, 1.5, None, [], -1, 2**63),
        *("-1B", "4", "4G", "4Gi", "GiB", "4 G iB", "4e3MB", "9" * 40 + "B", "8388608TiB"),
        *("٤GiB", ""),
    ],
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(written)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0),
        (2.5, 2.5),
        ("500ms", 0.5),
        ("30s", 30),
        ("2m", 120),
        ("2min", 120),
        ("1.5h", 5400),
        ("250us", 0.00025),
        (" 3 s ", 3),
    ],
)
def test_durations_are_seconds(written: float | str, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    [True, None, [], -1, float("nan"), float("inf"), 10**400, "-3s", "3", "3 sec", "1:30", "", "s"],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("kind", "value"), [(PositiveSize, 0), (PositiveSize, "0GiB"), (PositiveDuration, "0s")]
)
def test_zero_is_refused_where_it_means_nothing(kind: object, value: object) -> None:
    with pytest.raises(ValidationError, match="above 0"):
        TypeAdapter(kind).validate_python(value)


@given(st.integers(0, 2**63 - 1))
def test_a_written_size_reads_back(size: int) -> None:
    adapter = TypeAdapter(Size)
    assert adapter.validate_python(adapter.dump_python(size, mode="json")) == size


@given(st.floats(0, 1e9))
def test_a_written_duration_reads_back(seconds: float) -> None:
    adapter = TypeAdapter(Duration)
    assert adapter.validate_python(adapter.dump_python(seconds, mode="json")) == seconds


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 KB"),
        (163_000_000, "163.0 MB"),
        (999_960, "1.0 MB"),
        (2.5e15, "2500.0 TB"),
    ],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.35, "350 ms"),
        (0.9999, "1.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1m00s"),
        (248, "4m08s"),
        (3840, "1h04m"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
