"""Whatever a file, a flag or a variable holds, loading ends in a deployment or a told mistake."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import SpecError
from toolkit.spec.fields import known_fields
from toolkit.spec.gpus import GPUS
from toolkit.spec.loading import load
from toolkit.spec.models import Deployment
from toolkit.spec.presets import choose, render
from toolkit.spec.writing import scalar

GOOD = render(choose("hf://owner/name@main", gpu=GPUS[5], goal="throughput"))
SPICE = "\t\r\n :-#'\"[]{},&*!|>%@`$?\\\u2028\ufeff\x00\x85é😀0e.n~<="
FIELDS = sorted({f"{f.section}.{f.name}".lstrip(".") for f in known_fields(Deployment)})

pieces = st.sampled_from(SPICE) | st.characters(codec="utf-8")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS).map(lambda f: f.split(".")[-1]), inner)
    ),
    max_leaves=6,
)


def outcome(path: Path, flags: Sequence[str], environ: Mapping[str, str]) -> SpecError | None:
    try:
        load(path, overrides=flags, environ=environ)
    except SpecError as error:
        return error
    return None


def attempt(content: bytes, flags: Sequence[str] = (), environ: Mapping[str, str] = {}) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deploy.yaml"
        path.write_bytes(content)
        mistake = outcome(path, flags, environ)
    if mistake is not None:
        assert mistake.where
        assert mistake.message
        assert "\n" not in mistake.message


@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 4), pieces), max_size=6))
@settings(max_examples=250, deadline=None)
def test_a_damaged_file(damage: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for start, length, piece in damage:
        text = text[:start] + piece + text[start + length :]
    attempt(text.encode())


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes(content: bytes) -> None:
    attempt(content)


@given(st.sampled_from(FIELDS), values)
@settings(max_examples=300, deadline=None)
def test_any_value_in_any_field(field: str, value: object) -> None:
    try:
        text = scalar(value)  # type: ignore[arg-type]
    except ValueError:
        return
    attempt(GOOD.encode(), [f"{field.replace('<name>', 'batch')}={text}"])


@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_key(key: str) -> None:
    text = scalar({key: {key: 1}, "engine": {key: 1}, "scheduling": {"classes": {key: {}}}})
    attempt(f"{text}".encode())


@given(st.text(max_size=30), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_flag_and_variable(flag: str, name: str) -> None:
    attempt(GOOD.encode(), [flag], {f"TOOLKIT__{name}": flag})
