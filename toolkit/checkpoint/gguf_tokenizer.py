"""The tokenizer inside a GGUF file, as tokenizer.json, built with the package tokenizers.

How text is cut before the merges is not in the file but only named there
(``tokenizer.ggml.pre``). The names and their expressions are those of llama.cpp
(src/llama-vocab.cpp, read at commit 00ad355e); a name that is not in the table is refused,
because a tokenizer that cuts differently gives other tokens for the same text, silently.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.gguf_metadata import GgufFile
from toolkit.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_UNKNOWN, _CONTROL, _USER = 2, 3, 4
_NORMAL = 1

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = (
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = (
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _Cut:
    """How byte-level BPE cuts text: GPT-2's way, each digit alone first, or by a ``pattern``."""

    pattern: str | None = None
    digits: bool = False
    nfc: bool = False
    whole_words: bool = False
    """A word that is a token itself is taken as such, without looking at the merges."""
    begins: bool = False
    """Begins a text with the bos token unless the file says otherwise."""


_GPT2, _DIGITS = _Cut(), _Cut(digits=True)
_CUTS = {
    "gpt-2": _GPT2,
    "gpt2": _GPT2,
    "olmo": _GPT2,
    "mpt": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "codeshell": _DIGITS,
    "command-r": _DIGITS,
    "qwen2": _Cut(_QWEN2, nfc=True),
    "deepseek-r1-qwen": _Cut(_QWEN2, nfc=True),
    "llama3": _Cut(_LLAMA3, whole_words=True, begins=True),
    "llama-v3": _Cut(_LLAMA3, whole_words=True, begins=True),
    "llama-bpe": _Cut(_LLAMA3, whole_words=True, begins=True),
    "tekken": _Cut(_TEKKEN, whole_words=True, begins=True),
}


@dataclass(frozen=True)
class _Vocabulary:
    """Tokens in the order of their ids, with llama.cpp's type of each."""

    tokens: list[str]
    types: list[int]

    @property
    def ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}


def write_tokenizer(file: GgufFile, out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and, if any, chat_template.jinja.

    Raises:
        UnsupportedError: a kind of tokenizer, or a way of cutting text, that is not known here.
        SpecError: the vocabulary is missing or does not fit its merges.
    """
    vocabulary = _vocabulary(file)
    kind = file.needed("tokenizer.ggml.model", str)
    if kind == "gpt2":
        tokenizer, begins = _byte_level(file, vocabulary)
    elif kind == "llama":
        tokenizer, begins = _sentencepiece(file, vocabulary)
    else:
        raise UnsupportedError(
            f"tokenizers of kind {kind!r} are not converted",
            where=str(file.path),
            hint="fetch the model as safetensors with its tokenizer.json",
        )
    _add_special(tokenizer, vocabulary)
    flag = file.get("tokenizer.ggml.add_bos_token", bool)
    adds_bos = begins if flag is None else flag
    adds_eos = bool(file.get("tokenizer.ggml.add_eos_token", bool))
    _add_template(tokenizer, file, vocabulary, adds_bos=adds_bos, adds_eos=adds_eos)
    tokenizer.save(str(out / "tokenizer.json"))
    config = _config(file, vocabulary, adds_bos=adds_bos, adds_eos=adds_eos)
    (out / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if template := file.get("tokenizer.chat_template", str):
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")


def _vocabulary(file: GgufFile) -> _Vocabulary:
    tokens = file.needed("tokenizer.ggml.tokens", list)
    types = file.get("tokenizer.ggml.token_type", list) or [_NORMAL] * len(tokens)
    if len(set(tokens)) != len(tokens) or len(types) != len(tokens):
        raise SpecError("its vocabulary is damaged: tokens repeat", where=str(file.path))
    return _Vocabulary(tokens, types)


def _byte_level(file: GgufFile, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    name = file.get("tokenizer.ggml.pre", str) or "default"
    cut = _CUTS.get(name)
    if cut is None:
        raise UnsupportedError(
            f"how its tokenizer cuts text ({name!r}) is not known",
            where=str(file.path),
            hint="fetch the model as safetensors with its tokenizer.json",
        )
    merges = [_pair(merge, file) for merge in file.needed("tokenizer.ggml.merges", list)]
    tokenizer = Tokenizer(_bpe(models.BPE, file, vocabulary, merges, ignore_merges=cut.whole_words))
    if cut.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = []
    if cut.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if cut.pattern:
        steps.append(pre_tokenizers.Split(Regex(cut.pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not cut.pattern))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, cut.begins


def _sentencepiece(file: GgufFile, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """Llama 2's kind: SentencePiece BPE with spaces as U+2581 and bytes for the unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = file.needed("tokenizer.ggml.scores", list)
    prefix = file.get("tokenizer.ggml.add_space_prefix", bool)
    merges = merges_of(vocabulary.tokens, vocabulary.types, scores)
    unknown = file.get("tokenizer.ggml.unknown_token_id", int)
    tokenizer = Tokenizer(
        _bpe(
            models.BPE,
            file,
            vocabulary,
            merges,
            unk_token=vocabulary.tokens[unknown] if unknown is not None else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", "\u2581")
    back: list[Any] = [
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()
    ]  # fmt: skip
    if prefix is not False:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), spaces])
        back.append(decoders.Strip(content=" ", left=1, right=0))
    else:
        tokenizer.normalizer = spaces
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer, True


def merges_of(tokens: list[str], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """The merges that a SentencePiece BPE vocabulary implies, the strongest first.

    SentencePiece joins the two neighbours whose joined token has the highest score; so every
    way to cut a token into two tokens is a merge of that token's rank.
    """
    ids = {token: index for index, token in enumerate(tokens)}
    ranked = []
    for index, token in enumerate(tokens):
        if types[index] != _NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                ranked.append((-scores[index], left, right))
    return [(tokens[left], tokens[right]) for _, left, right in sorted(ranked)]


def _bpe(
    model: Any,
    file: GgufFile,
    vocabulary: _Vocabulary,
    merges: list[tuple[str, str]],
    **options: Any,
) -> Any:
    try:
        return model(vocab=vocabulary.ids, merges=merges, **options)
    except Exception as error:
        raise SpecError(
            f"its merges do not fit its tokens: {error}", where=str(file.path)
        ) from error


def _pair(merge: str, file: GgufFile) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right or " " in right:
        raise SpecError(f"its merge {merge!r} is no pair of tokens", where=str(file.path))
    return left, right


def _add_special(tokenizer: Tokenizer, vocabulary: _Vocabulary) -> None:
    from tokenizers import AddedToken

    for kinds, special in (((_UNKNOWN, _CONTROL), True), ((_USER,), False)):
        added = [
            AddedToken(token, normalized=False, special=special)
            for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
            if kind in kinds
        ]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)


def _add_template(
    tokenizer: Tokenizer, file: GgufFile, vocabulary: _Vocabulary, *, adds_bos: bool, adds_eos: bool
) -> None:
    from tokenizers import processors

    bos = _token(file, vocabulary, "bos_token_id") if adds_bos else None
    eos = _token(file, vocabulary, "eos_token_id") if adds_eos else None
    parts = [part for part in (bos, "$A", eos) if part]
    if len(parts) == 1:
        return
    second = [part.replace("$A", "$B:1") for part in parts]
    ids = vocabulary.ids
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(parts),
        pair=" ".join(parts + second),
        special_tokens=[(token, ids[token]) for token in (bos, eos) if token],
    )


def _token(file: GgufFile, vocabulary: _Vocabulary, name: str) -> str | None:
    index = file.get(f"tokenizer.ggml.{name}", int)
    if index is None or not 0 <= index < len(vocabulary.tokens):
        return None
    return vocabulary.tokens[index]


def _config(
    file: GgufFile, vocabulary: _Vocabulary, *, adds_bos: bool, adds_eos: bool
) -> dict[str, Any]:
    names = {
        "bos_token": "bos_token_id",
        "eos_token": "eos_token_id",
        "unk_token": "unknown_token_id",
        "pad_token": "padding_token_id",
    }
    tokens = {name: _token(file, vocabulary, key) for name, key in names.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": adds_bos,
        "add_eos_token": adds_eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": file.needed("{arch}.context_length", int),
        **{name: token for name, token in tokens.items() if token is not None},
    }
