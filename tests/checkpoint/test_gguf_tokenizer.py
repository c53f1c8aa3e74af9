from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf_files import TinyGguf
from tokenizers import Tokenizer

from toolkit.checkpoint.gguf_metadata import open_gguf
from toolkit.checkpoint.gguf_tokenizer import merges_of, write_tokenizer
from toolkit.errors import SpecError, UnsupportedError


def tokenizer(tiny: TinyGguf, tmp_path: Path) -> Tokenizer:
    tiny.write(tmp_path / "tiny.gguf")
    write_tokenizer(open_gguf(tmp_path / "tiny.gguf"), tmp_path)
    return Tokenizer.from_file(str(tmp_path / "tokenizer.json"))


def tokens(tiny: TinyGguf, tmp_path: Path, text: str) -> list[str]:
    return tokenizer(tiny, tmp_path).encode(text).tokens


TEXTS = [
    "hello world", "  two  spaces\n\n\tand tabs", "def f(x):\n    return x ** 2  # ok",
    "日本語のテキスト、中文。", "👩‍👩‍👧‍👦 🎉", "ünïcödé \u00a0", "12345 ½ ² ١٢٣", "",
]  # fmt: skip


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "tekken", "starcoder"])
@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(tmp_path: Path, pre: str, text: str) -> None:
    tiny = TinyGguf(pre=pre, metadata={"tokenizer.ggml.add_bos_token": False})
    found = tokenizer(tiny, tmp_path)
    assert found.decode(found.encode(text).ids) == text


def test_merges_are_applied(tmp_path: Path) -> None:
    assert tokens(TinyGguf(), tmp_path, "hello w") == ["hello", "Ġw"]


@pytest.mark.parametrize(
    ("pre", "found"),
    [
        ("smollm", ["1", "2", "3", "Ġ", "Â½"]),
        ("gpt-2", ["123", "ĠÂ½"]),
        ("llama-bpe", ["123", "Ġ", "Â½"]),
        ("tekken", ["1", "2", "3", "Ġ", "Â½"]),
    ],
)
def test_numbers_are_cut_as_the_name_says(tmp_path: Path, pre: str, found: list[str]) -> None:
    tiny = TinyGguf(pre=pre, metadata={"tokenizer.ggml.add_bos_token": False})
    assert tokens(tiny, tmp_path, "123 ½") == found


def test_special_tokens_are_found_in_text_and_left_out_of_it(tmp_path: Path) -> None:
    found = tokenizer(TinyGguf(), tmp_path)
    encoded = found.encode("<|im_start|>hello<|im_end|><tool>")
    assert encoded.tokens == ["<|im_start|>", "hello", "<|im_end|>", "<tool>"]
    assert found.decode(encoded.ids) == "hello<tool>"


@pytest.mark.parametrize(
    ("pre", "metadata", "begins", "ends"),
    [
        ("smollm", {}, False, False),
        ("llama-bpe", {}, True, False),
        ("llama-bpe", {"tokenizer.ggml.add_bos_token": False}, False, False),
        ("smollm", {"tokenizer.ggml.add_bos_token": True}, True, False),
        ("smollm", {"tokenizer.ggml.add_eos_token": True}, False, True),
    ],
)
def test_bos_and_eos(tmp_path: Path, pre: str, metadata: dict, begins: bool, ends: bool) -> None:
    found = tokens(TinyGguf(pre=pre, metadata=metadata), tmp_path, "hello")
    assert found == ["<|im_start|>"] * begins + ["hello"] + ["<|im_end|>"] * ends
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["add_bos_token"] is begins


def test_the_config_names_the_special_tokens_and_the_template_is_kept(tmp_path: Path) -> None:
    tokenizer(TinyGguf(), tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert config["model_max_length"] == 256
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages }}"


@pytest.mark.parametrize("kind", ["bert", "t5", "rwkv"])
def test_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnsupportedError, match=f"kind '{kind}'"):
        tokenizer(TinyGguf(model=kind), tmp_path)


@pytest.mark.parametrize(
    ("tiny", "message"),
    [
        (TinyGguf(merges=["xx yz"]), "merges do not fit"),
        (TinyGguf(merges=["hello"]), "no pair"),
        (TinyGguf(merges=["a b c"]), "no pair"),
        (TinyGguf(tokens=["a", "a"], types=[1, 1]), "tokens repeat"),
    ],
)
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, tiny: TinyGguf, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        tokenizer(tiny, tmp_path)


SPM = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)],
       "▁", "h", "e", "l", "o", "he", "ll", "hell", "hello", "▁hello"]  # fmt: skip
SPM_TYPES = [2, 3, 3, *[6] * 256, *[1] * 10]
SPM_SCORES = [0.0] * 259 + [-100.0, -101.0, -102.0, -103.0, -104.0, 0.0, -1.0, -2.0, -3.0, -4.0]


def test_the_merges_behind_a_sentencepiece_vocabulary() -> None:
    merges = merges_of(SPM, SPM_TYPES, SPM_SCORES)
    assert merges == [
        ("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello")
    ]  # fmt: skip


class TestSentencePiece:
    @pytest.fixture
    def found(self, tmp_path: Path) -> Tokenizer:
        scores = {"tokenizer.ggml.scores": SPM_SCORES}
        tiny = TinyGguf(model="llama", tokens=SPM, types=SPM_TYPES, merges=[], metadata=scores)
        return tokenizer(tiny, tmp_path)

    def test_spaces_and_the_beginning(self, found: Tokenizer) -> None:
        assert found.encode("hello hello").tokens == ["<s>", "▁hello", "▁hello"]

    def test_bytes_of_what_is_not_in_it(self, found: Tokenizer) -> None:
        assert found.encode("é").tokens == ["<s>", "▁", "<0xC3>", "<0xA9>"]

    @pytest.mark.parametrize("text", [text for text in TEXTS if text])
    def test_any_text_comes_back(self, found: Tokenizer, text: str) -> None:
        assert found.decode(found.encode(text).ids) == text
