from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from toolkit.checkpoint.safetensors_file import (
    SafetensorsWriter,
    TensorSpec,
    read_header,
    read_tensor,
)
from toolkit.errors import BuildError, SpecError

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b.weight": np.arange(8, dtype=ml_dtypes.bfloat16).reshape(2, 4),
    "c.scale": np.array(0.5, np.float32),
    "d.empty": np.zeros((0, 4), np.float16),
    "e.packed": np.arange(5, dtype=np.uint8),
    "f.fp8": np.arange(6, dtype=np.float32).astype(ml_dtypes.float8_e4m3fn).reshape(2, 3),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    return path


def test_reads_what_the_reference_library_wrote(file: Path) -> None:
    header = read_header(file)
    assert {info.name: info.shape for info in header} == {
        name: value.shape for name, value in TENSORS.items()
    }
    for info in header:
        value = read_tensor(file, info)
        assert value.dtype == TENSORS[info.name].dtype
        np.testing.assert_array_equal(
            value.astype(np.float32), TENSORS[info.name].astype(np.float32)
        )


def test_the_reference_library_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    specs = {
        "x": TensorSpec("BF16", (3, 5)),
        "y": TensorSpec("F32", (2,)),
        "z": TensorSpec("U8", (7,)),
    }
    x = np.arange(15, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(3, 5)
    with SafetensorsWriter(path, specs) as writer:
        writer.write([x[:1], x[1:]])
        writer.write([np.array([1.5, -2], np.float32)])
        writer.write([np.arange(7, dtype=np.uint8)])
    read = load_file(path)
    np.testing.assert_array_equal(read["x"].astype(np.float32), x.astype(np.float32))
    assert read["y"].tolist() == [1.5, -2]
    assert read["z"].tolist() == list(range(7))
    assert read_header(path)[0].begin % 8 == 0


def test_writing_too_little_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(BuildError, match="8 bytes of 12"),
        SafetensorsWriter(tmp_path / "x", {"x": TensorSpec("F32", (3,))}) as writer,
    ):
        writer.write([np.zeros(2, np.float32)])


@pytest.mark.parametrize("lost", [1, 20, 60])
def test_truncation_is_found_without_reading_the_values(file: Path, lost: int) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[:-lost])
    with pytest.raises(SpecError, match=f"truncated: {len(raw) - lost} bytes of {len(raw)}"):
        read_header(file)


def test_trailing_bytes_are_found(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"xyz")
    with pytest.raises(SpecError, match="3 bytes too many"):
        read_header(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0" * 4096, "all zeros"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>not found</html>", "no safetensors file"),
        (b"\x02\0\0\0\0\0\0\0[]", "no JSON object"),
        (b"\x02\0\0\0\0\0\0\0{,", "damaged header"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        read_header(path)


def with_header(path: Path, header: object, data: bytes) -> Path:
    raw = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def entry(begin: int, end: int, dtype: str = "U8", shape: tuple[int, ...] | None = None) -> dict:
    return {"dtype": dtype, "shape": shape or [end - begin], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(0, 4), "b": entry(2, 8)}, "'b' overlaps"),
        ({"a": entry(0, 4), "b": entry(6, 8)}, "'b' follows a hole"),
        ({"a": entry(0, 4), "b": entry(4, 9)}, "truncated"),
        ({"a": entry(0, 8, "F32", (3,))}, "8 bytes for F32"),
        ({"a": entry(0, 8, "Q4")}, "unknown type 'Q4'"),
        ({"a": {"dtype": "U8", "shape": [8]}}, "at tensor 'a'"),
        ({"a": entry(0, 8) | {"shape": [-1]}}, "at tensor 'a'"),
        ({"a": entry(0, 8) | {"shape": [2.0, 4]}}, "at tensor 'a'"),
        (b'{"a":' + json.dumps(entry(0, 4)).encode() + b',"a":'
         + json.dumps(entry(4, 8)).encode() + b"}", "a name occurs twice"),
    ],
)  # fmt: skip
def test_headers_that_do_not_add_up(tmp_path: Path, header: object, message: str) -> None:
    path = with_header(tmp_path / "model.safetensors", header, bytes(8))
    with pytest.raises(SpecError, match=message):
        read_header(path)


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.integers(0, 10**6))
def test_no_damage_to_the_header_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    save_file(TENSORS, path)
    raw = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    raw[position % header] ^= 1 << bit
    path.write_bytes(raw[: len(raw) - cut % 8])
    # A flipped bit in a name or a dtype of the same size cannot be seen; anything else must
    # be refused in the toolkit's own words.
    with suppress(SpecError):
        read_header(path)
