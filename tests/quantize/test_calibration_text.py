from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toolkit.quantize
from toolkit.errors import EnvironmentError_, SpecError
from toolkit.quantize.calibration import (
    Sample,
    batches,
    encode,
    heldout_samples,
    load_samples,
    packed,
)
from toolkit.spec.models import Calibration

DATA = Path(toolkit.quantize.__file__).parent / "data"
ROOT = Path(__file__).parents[2]


class Letters:
    """A tokenizer of one token a character."""

    chat_template = "yes"

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}

    def apply_chat_template(self, conversation: Any, **_: Any) -> str:
        return "".join(f"[{turn['role']}]{turn['content']}" for turn in conversation)


def sentences(name: str) -> set[str]:
    text = (DATA / name).read_text(encoding="utf-8")
    return {part.strip() for part in re.split(r"[.!?]\s|\\n", text) if len(part.strip()) > 40}


def test_builtin_text_is_large_and_varied() -> None:
    samples = load_samples(Calibration(samples=10_000))
    assert len(samples) == 256
    assert len(set(samples)) == 256
    assert sum(bool(sample.messages) for sample in samples) > 20
    # Any prefix is varied as well: a build with few samples sees conversations too.
    assert any(sample.messages for sample in samples[:32])


def test_held_out_text_shares_no_sentence_with_the_calibration_text() -> None:
    assert len(heldout_samples()) >= 30
    assert not sentences("calibration.jsonl") & sentences("heldout.jsonl")


def test_the_files_are_what_their_script_writes(tmp_path: Path) -> None:
    script = ROOT / "build_scripts" / "calibration" / "make.py"
    code = (
        f"import runpy, pathlib; made = runpy.run_path({str(script)!r})\n"
        f"made['write'].__globals__['DATA'] = pathlib.Path({str(tmp_path)!r})\n"
        "made['write']('calibration.jsonl', made['calibration']())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "calibration.jsonl").read_bytes() == (
        DATA / "calibration.jsonl"
    ).read_bytes()


def test_a_number_of_samples(tmp_path: Path) -> None:
    assert len(load_samples(Calibration(samples=7))) == 7


def test_jsonl_with_texts_and_conversations(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    file.write_text(json.dumps({"text": "abc"}) + "\n\n" + json.dumps({"messages": turns}) + "\n")
    samples = load_samples(Calibration(source=str(file)))
    assert encode(samples, Letters(), 100) == (
        tuple(map(ord, "abc")),
        tuple(map(ord, "[user]hi[assistant]hello")),
    )


def test_text_file_by_paragraphs(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("one\ntwo\n\n\n\nthree\n")
    assert load_samples(Calibration(source=str(file))) == (
        Sample(text="one\ntwo\n"),
        Sample(text="three\n"),
    )


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    texts = ["one\u2028two", "three\x85four", "five\x0bsix\x1c"]
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    file.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    assert [sample.text for sample in load_samples(Calibration(source=str(file)))] == texts
    file = tmp_path / "own.txt"
    file.write_bytes("one\u2028two\r\n\r\nthree".encode())
    assert load_samples(Calibration(source=str(file))) == (
        Sample(text="one\u2028two\n"),
        Sample(text="three\n"),
    )


def test_of_a_large_file_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    for suffix, line in ((".jsonl", b'{"text": "a"}\n'), (".txt", b"a\n\n")):
        file = tmp_path / f"own{suffix}"
        file.write_bytes(line * 10 + b"\xff, and whatever follows\n")
        assert len(load_samples(Calibration(source=str(file), samples=9))) == 9
        with pytest.raises(SpecError, match="UTF-8") as caught:
            load_samples(Calibration(source=str(file)))
        assert caught.value.where == f"{file}:{11 if suffix == '.jsonl' else 21}"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"text": "a"}\n{"text": 5}\n', ":2"),
        ('{"text": "a"}\n{"txt": "b"}\n', ":2"),
        ('{"messages": []}\n', ":1"),
        ('{"messages": [{"role": "user"}]}\n', ":1"),
        ('["a"]\n', ":1"),
        ('{"text": "a"\n', ":1:"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str, where: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(content)
    with pytest.raises(SpecError) as caught:
        load_samples(Calibration(source=str(file)))
    assert f"own.jsonl{where}" in str(caught.value.where)


def test_missing_empty_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_samples(Calibration(source=str(tmp_path / "none.jsonl")))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(SpecError, match="empty"):
        load_samples(Calibration(source=str(tmp_path / "empty.txt")))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SpecError, match="UTF-8"):
        load_samples(Calibration(source=str(tmp_path / "latin.txt")))


def test_a_data_set_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    import modelopt.torch.utils.dataset_utils as upstream

    def unreachable(*_: object) -> list[str]:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(upstream, "get_dataset_samples", unreachable)
    with pytest.raises(EnvironmentError_, match="no route to host") as caught:
        load_samples(Calibration(source="cnn_dailymail"))
    assert "builtin" in str(caught.value.hint)


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=20).map(tuple), max_size=12),
    st.integers(2, 9),
    st.integers(1, 4),
)
def test_packing_keeps_every_token_in_order(
    documents: list[tuple[int, ...]], length: int, size: int
) -> None:
    rows = packed(documents, length)
    stream = [token for document in documents for token in document]
    kept = [token for row in rows for token in row]
    # A single token at the very end predicts nothing and may be left out.
    assert kept == stream[: len(kept)]
    assert len(stream) - len(kept) <= 1
    assert all(len(row) == length for row in rows[:-1])
    grouped = batches(rows, size)
    assert sorted(row for batch in grouped for row in batch) == sorted(rows)
    assert all(len(batch) <= size and len(set(map(len, batch))) == 1 for batch in grouped)
