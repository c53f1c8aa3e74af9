"""Each way to spoil a repository is found, and where it is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from llm_serving.tokenizer import _DECODERS

from toolkit.errors import SpecError
from toolkit.repository.check import check_static
from toolkit.repository.contents import DECODERS

Spoil = Callable[[Path], object]


def replace(file: str, pattern: str, new: str) -> Spoil:
    def spoil(repository: Path) -> None:
        path = repository / file
        text, count = re.subn(pattern, new, path.read_text())
        assert count
        path.write_text(text)

    return spoil


def retype(file: str, tensor: str, new: str) -> Spoil:
    return replace(file, rf'("{tensor}" data_type: )TYPE_\w+ dims: \[[-\d]+\]', rf"\1{new}")


def edit(file: str, *keys: str, value: object) -> Spoil:
    def spoil(repository: Path) -> None:
        path = repository / file
        content = json.loads(path.read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.unlink()  # engine files are links to the artifact
        path.write_text(json.dumps(content))

    return spoil


def write(file: str, text: str) -> Spoil:
    return lambda repository: (repository / file).write_text(text)


def damage(file: str) -> Spoil:
    def spoil(repository: Path) -> None:
        (repository / file).unlink()  # engine files are links to the artifact
        (repository / file).write_bytes(b"\x00\xff")

    return spoil


def remove(file: str) -> Spoil:
    return lambda repository: (repository / file).unlink()


MODEL, ALIAS = "chat/config.pbtxt", "tensorrt_llm/config.pbtxt"
SETTINGS, ENGINE = "chat/1/settings.json", "chat/1/engine/engine.json"
TOKENIZER = "chat/1/tokenizer/tokenizer.json"


def test_a_fresh_repository_is_in_order(rendered: Path) -> None:
    assert check_static(rendered) == []


@pytest.mark.parametrize(
    ("spoil", "where", "message"),
    [
        (write(MODEL, "name: chat"), MODEL, "cannot be read: 1:7"),
        (replace(MODEL, "max_batch_size: 1", "max_batchsize: 1"), MODEL, "max_batchsize"),
        (replace(MODEL, 'name: "chat"', 'name: "chit"'), MODEL, "its folder 'chat'"),
        (replace(MODEL, "decoupled: true", "decoupled: false"), MODEL, "not decoupled"),
        (replace(MODEL, "count: 1", "count: 2"), MODEL, "2 instances"),
        (replace(MODEL, "max_batch_size: 1", "max_batch_size: 8"), MODEL, "clients expect 1"),
        (retype(MODEL, "top_p", "TYPE_FP64 dims: [1]"), MODEL, "'top_p' is TYPE_FP64"),
        (replace(MODEL, r'input \[ { name: "seed".*', ""), MODEL, "'seed' of the public"),
        (replace(MODEL, '"max_tokens"', '"max_token"'), MODEL, "'max_token' is not in"),
        (remove(ALIAS), "tensorrt_llm", "no config.pbtxt"),
        (replace(ALIAS, 'model_name: "chat"', 'model_name: "chut"'), ALIAS, "not a model"),
        (replace(ALIAS, 'key: "top_k"', 'key: "topk"'), ALIAS, "does not have"),
        (replace(ALIAS, r'.*key: "top_k".*', ""), ALIAS, "'sampling_param_top_k' is not used"),
        (replace(ALIAS, r'.*key: "text_output".*', ""), ALIAS, "'text_output' is not produced"),
        (replace(ALIAS, r'.*key: "text_input".*', ""), ALIAS, "which is not optional"),
        (retype(ALIAS, "sampling_param_seed", "TYPE_UINT64 dims: [3]"), ALIAS, "in shape"),
        (retype(ALIAS, "streaming", "TYPE_INT32 dims: [1]"), ALIAS, "in data type"),
        (remove("chat/1/model.py"), "chat/1/model.py", "missing"),
        (remove("chat/1/engine/openvino_model.bin"), "chat/1/engine/openvino_model.bin", "missing"),
        (remove(TOKENIZER), TOKENIZER, "missing"),
        (edit(SETTINGS, "model_name", value="other"), SETTINGS, "'other'"),
        (edit(SETTINGS, "limits", "max_seq_len", value=5), SETTINGS, "limits.max_seq_len is 5"),
        (edit(SETTINGS, "engine", "speculation", value="draft_model"), "chat/1/engine", "no draft"),
        (edit(ENGINE, "target", "max_position", value=128), SETTINGS, "reaches 128"),
        (edit(ENGINE, "target", "vocab_size", value=100), TOKENIZER, "the model has 100 tokens"),
        (edit(TOKENIZER, "decoder", value={"type": "WordPiece"}), TOKENIZER, "WordPiece"),
        (write(SETTINGS, '{"model_name": '), SETTINGS, "not JSON"),
        (write(SETTINGS, '{"model_name": "chat"}'), SETTINGS, "'engine' is missing"),
        (write(TOKENIZER, "<html>"), TOKENIZER, "not JSON"),
        (edit(TOKENIZER, "model", value={}), TOKENIZER, "'vocab' is missing"),
        (damage(ENGINE), ENGINE, "not JSON"),
        (write("chat/1/extra.py", "def half("), "chat/1/extra.py:1", "cannot be read"),
        (write("chat/1/extra.py", "import torch.nn"), "chat/1/extra.py:1", "imports torch.nn"),
        (write("chat/1/extra.py", "from toolkit import errors"), "chat/1/extra.py:1", "toolkit"),
        (write("chat/1/a.json", '{"token": "hf_' + "a1" * 17 + '"}'), "chat/1/a.json", "token"),
        (write("chat/1/b.pem", "-----BEGIN RSA PRIVATE KEY-----"), "chat/1/b.pem", "private key"),
    ],
)
def test_spoilt_repositories(repository: Path, spoil: Spoil, where: str, message: str) -> None:
    spoil(repository)
    findings = check_static(repository)
    assert [each for each in findings if each.where == where and message in each.message], findings


def test_a_unigram_vocabulary_is_read_too(repository: Path) -> None:
    vocabulary = {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}
    edit(TOKENIZER, "model", value=vocabulary)(repository)
    assert check_static(repository) == []
    edit(TOKENIZER, "model", "vocab", value=[["a", -1.0]] * 500)(repository)
    assert [finding.where for finding in check_static(repository)] == [TOKENIZER]


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no model repository"):
        check_static(tmp_path / "nowhere")


def test_the_check_knows_the_decoders_that_the_model_knows() -> None:
    assert DECODERS == _DECODERS
