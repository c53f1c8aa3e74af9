from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_serving.detokenizer import Detokenizer
from llm_serving.engine_api import Sampling, TokenChunk
from llm_serving.request import ParsedRequest, Wishes
from llm_serving.stream import Stream
from llm_serving.tokenizer import TextTokenizer

SENTENCES = ["Über 日本語 🎉🎊 and  double  spaces", " leading", "tab\tand\nnewline", "é" * 20]


@pytest.fixture(scope="module")
def byte_level(checkpoint: Path) -> TextTokenizer:
    return TextTokenizer(checkpoint)


@pytest.fixture(scope="module")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """As SentencePiece vocabularies are converted: a mark for spaces, a token for each byte."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": 1 + byte for byte in range(256)}
    for piece in ("▁", "a", "n", "d", "▁a", "nd", "▁and", "l", "e", "i", "g"):
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [("▁", "a"), ("n", "d"), ("▁a", "nd")]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    folder = tmp_path_factory.mktemp("byte_fallback")
    tokenizer.save(str(folder / "tokenizer.json"))
    return TextTokenizer(folder)


def streamed(tokenizer: TextTokenizer, tokens: list[int], sizes: list[int], **options: bool) -> str:
    detokenizer = Detokenizer(tokenizer, **options)
    pieces, start = [], 0
    for size in [*sizes, len(tokens)]:
        piece = detokenizer.feed(tokens[start : start + size])
        assert "\ufffd" not in piece or "\ufffd" in decoded(tokenizer, tokens, **options)
        pieces.append(piece)
        start += size
    return "".join(pieces) + detokenizer.feed([], final=True)


def decoded(
    tokenizer: TextTokenizer, tokens: list[int], *, skip_special_tokens: bool = True
) -> str:
    text: str = tokenizer._tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)
    return text


@settings(max_examples=300, deadline=None)
@given(data=st.data(), special=st.booleans())
def test_any_tokens_in_any_chunks_give_the_text_decoded_at_once(
    byte_level: TextTokenizer, data: st.DataObject, special: bool
) -> None:
    ids = st.integers(0, byte_level.vocabulary_size - 1)
    tokens = data.draw(st.lists(ids, max_size=40))
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=40))
    expected = decoded(byte_level, tokens, skip_special_tokens=special)
    assert streamed(byte_level, tokens, sizes, skip_special_tokens=special) == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="and leig🎉é日", max_size=30), sizes=st.lists(st.integers(1, 3)))
def test_byte_fallback_text_comes_back(
    byte_fallback: TextTokenizer, text: str, sizes: list[int]
) -> None:
    tokens = list(byte_fallback.encode(text))
    assert streamed(byte_fallback, tokens, sizes) == decoded(byte_fallback, tokens) == text


def test_an_answer_after_its_prompt_keeps_the_space_between(byte_fallback: TextTokenizer) -> None:
    prompt, whole = byte_fallback.encode("and a"), byte_fallback.encode("and a and")
    assert whole[: len(prompt)] == prompt
    for echo, expected in (("and a", "and a and"), ("", "and")):
        wishes = Wishes(True, (), False, False, echo, True)
        parsed = ParsedRequest(prompt, Sampling(max_tokens=9), wishes, 0, None)
        stream = Stream(1, parsed, byte_fallback, handle=None)
        stream.feed(TokenChunk(1, list(whole[len(prompt) :]), finish="length"))
        assert stream.take()[0] == expected


@pytest.mark.parametrize("text", SENTENCES)
def test_one_token_at_a_time_never_shows_half_a_character(
    byte_level: TextTokenizer, text: str
) -> None:
    detokenizer = Detokenizer(byte_level)
    pieces = [detokenizer.feed([token]) for token in byte_level.encode(text)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_unfinished_character_is_given_up_at_the_end(byte_level: TextTokenizer) -> None:
    start_of_four = byte_level.token_bytes.index(b"\xf0")
    detokenizer = Detokenizer(byte_level)
    assert detokenizer.feed([start_of_four]) == ""
    assert detokenizer.feed([], final=True) == "\ufffd"


def test_ids_beyond_the_vocabulary_are_silent(byte_level: TextTokenizer) -> None:
    """Output layers are padded to round sizes, so such an id can be generated."""
    assert Detokenizer(byte_level).feed([byte_level.vocabulary_size + 5]) == ""
