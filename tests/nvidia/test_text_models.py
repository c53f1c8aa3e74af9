"""Text models of the ensemble: unfinished characters, word lists, tokenizer information."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_serving.detokenizer import complete_bytes
from miniature import write_checkpoint

from toolkit.checkpoint.architecture import read_architecture
from toolkit.repository.nvidia.tokenizer_info import tokenizer_info


@given(st.text(min_size=1), st.lists(st.integers(1, 4), min_size=1))
def test_characters_are_whole_wherever_bytes_are_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    shown, rest, place, turn = b"", b"", 0, 0
    while place < len(data):
        size = cuts[turn % len(cuts)]
        whole, rest = complete_bytes(rest, data[place : place + size])
        whole.decode("utf-8")  # nothing unfinished is ever shown
        shown, place, turn = shown + whole, place + size, turn + 1
    assert (shown + rest).decode() == text


def test_what_is_left_of_another_text_is_dropped() -> None:
    assert complete_bytes("🎉".encode()[:2], b"next") == (b"next", b"")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_tokenizer_information_is_in_the_order_of_ids(checkpoint: Path) -> None:
    from tokenizers import Tokenizer

    info = tokenizer_info(checkpoint / "tokenizer.json", read_architecture(checkpoint))
    tokenizer = Tokenizer.from_str(info["tokenizer_str"])
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        assert info["encoded_vocab"][number] == token
    assert info["stop_token_ids"] == [0]
    json.dumps(info)
