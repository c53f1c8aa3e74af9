"""What decides an artifact besides settings."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

from toolkit.pipeline.provenance import code_digest, tree_digest, versions


def test_tree_digest_sees_names_contents_and_nothing_else(tmp_path: Path) -> None:
    def write(root: Path, name: str, text: str) -> str:
        root.mkdir(exist_ok=True)
        (root / name).write_text(text)
        return tree_digest(root)

    one = write(tmp_path / "one", "a.py", "x = 1")
    assert write(tmp_path / "two", "a.py", "x = 1") == one
    assert write(tmp_path / "three", "b.py", "x = 1") != one
    assert write(tmp_path / "four", "a.py", "x = 2") != one
    cache = tmp_path / "one" / "__pycache__"
    cache.mkdir()
    (cache / "a.cpython-311.pyc").write_text("")
    assert tree_digest(tmp_path / "one") == one


def test_large_files_are_read_in_parts_and_count_as_before(tmp_path: Path) -> None:
    block = bytes(range(256)) * 4096
    with (tmp_path / "head.safetensors").open("wb") as file:
        for _ in range(64):
            file.write(block)
    expected = hashlib.sha256(f"head.safetensors\0{64 * len(block)}\0".encode())
    for _ in range(64):
        expected.update(block)
    tracemalloc.start()
    found = tree_digest(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == expected.hexdigest()
    assert peak < 16 * len(block)


def test_contents_cannot_move_between_files_unseen(tmp_path: Path) -> None:
    for name, texts in {"one": ("ab", "c"), "two": ("a", "bc")}.items():
        (tmp_path / name).mkdir()
        for file, text in zip(("x", "y"), texts, strict=True):
            (tmp_path / name / file).write_text(text)
    assert tree_digest(tmp_path / "one") != tree_digest(tmp_path / "two")


def test_code_digest_differs_by_room_and_reads_packages_and_modules() -> None:
    assert code_digest("toolkit.workspace") == code_digest("toolkit.workspace")
    assert code_digest("toolkit.workspace") != code_digest("toolkit.errors")


def test_a_missing_distribution_is_named_absent() -> None:
    found = versions(["pytest", "no-such-distribution-here"])
    assert found["pytest"][0].isdigit()
    assert found["no-such-distribution-here"] == "absent"
