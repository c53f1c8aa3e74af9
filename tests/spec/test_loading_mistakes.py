"""Every mistake in a deployment file names its place, its field and the way out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from toolkit.errors import SpecError
from toolkit.spec.loading import MAX_BYTES, load

HEAD = "name: chat\nmodel: {source: ./model}\n"
"""Two good lines; the mistake of a case stands from line 3 on."""


@dataclass(frozen=True)
class Case:
    """A file's text after HEAD, and what its error has to say."""

    text: str
    line: int
    column: int
    message: str
    hint: str | None = None
    head: str = HEAD


def limits(value: str) -> str:
    return f"engine:\n  limits:\n    max_batch_size: {value}\n"


def speculation(inside: str) -> str:
    return f"engine:\n  speculation: {inside}\n"


BATCH = "engine.limits.max_batch_size must be a whole number from 1 to 4096, not "
METHODS = "draft_model, ngram, eagle3, eagle, medusa, lookahead, mtp"
PLACES = (
    "source belongs under model or quantization.calibration or engine.speculation.draft or "
    "engine.speculation (method eagle3 or eagle or medusa)"
)

WRONG_VALUES = {
    "a word for a number": Case(limits("many"), 5, 21, BATCH + "many"),
    "a number in quotes": Case(limits("'32'"), 5, 21, BATCH + "'32'", "remove the quotes"),
    "underscores": Case(limits("1_000"), 5, 21, BATCH + "1_000", "write 1000"),
    "a thousands comma": Case(limits("'1,000'"), 5, 21, BATCH + "'1,000'", "write 1000"),
    "a leading zero": Case(limits("010"), 5, 21, BATCH + "010", "write 10"),
    "base 60": Case(limits("1:30"), 5, 21, BATCH + "1:30"),
    "an exponent": Case(limits("1e3"), 5, 21, BATCH + "1e3", "write 1000"),
    "a whole float": Case(limits("32.0"), 5, 21, BATCH + "32.0", "write 32"),
    "a fraction": Case(limits("32.5"), 5, 21, BATCH + "32.5"),
    "a boolean for a number": Case(limits("true"), 5, 21, BATCH + "true"),
    "below the range": Case(limits("0"), 5, 21, BATCH + "0"),
    "above the range": Case(limits("5000"), 5, 21, BATCH + "5000"),
    "not a number": Case(limits(".nan"), 5, 21, BATCH + ".nan"),
    "too many digits": Case(limits("9" * 5000), 5, 21, BATCH + "9" * 37 + "..."),
    "no value": Case(
        limits(""), 5, 5, BATCH + "empty", "give a value, or remove the line for the default"
    ),
    "a list for a number": Case(limits("[1]"), 5, 21, BATCH + "a list"),
    "a section for a number": Case(limits("{a: 1}"), 5, 21, BATCH + "a section"),
    "infinite": Case(
        "engine: {kv_cache: {free_memory_fraction: .inf}}",
        3,
        43,
        "engine.kv_cache.free_memory_fraction must be a number above 0, at most 1, not .inf",
    ),
    "yes for true": Case(
        "engine: {kv_cache: {reuse: yes}}",
        3,
        28,
        "engine.kv_cache.reuse must be true or false, not yes",
        "write true",
    ),
    "off for false": Case(
        "engine: {kv_cache: {reuse: off}}",
        3,
        28,
        "engine.kv_cache.reuse must be true or false, not off",
        "write false",
    ),
    "1 for true": Case(
        "engine: {kv_cache: {reuse: 1}}",
        3,
        28,
        "engine.kv_cache.reuse must be true or false, not 1",
        "write true",
    ),
    "a near choice": Case(
        "quantization: {weights: int4-awk}",
        3,
        25,
        "quantization.weights must be one of none, auto, fp8, int4_awq, w4a8_awq, int8_sq, nvfp4, "
        "not int4-awk",
        "did you mean int4_awq?",
    ),
    "another spelling": Case(
        "engine: {runtime: Tensor-RT}",
        3,
        19,
        "engine.runtime must be one of auto, tensorrt, pytorch, openvino, not Tensor-RT",
        "write tensorrt",
    ),
    "an unknown choice": Case(
        "engine: {runtime: cuda}",
        3,
        19,
        "engine.runtime must be one of auto, tensorrt, pytorch, openvino, not cuda",
    ),
    "a size without B": Case(
        "engine: {kv_cache: {size: 4G}}",
        3,
        27,
        "engine.kv_cache.size must be a size above 0, such as 4GiB, 512MiB or 10GB, not 4G",
        "write 4GB",
    ),
    "a negative size": Case(
        "engine: {kv_cache: {host_offload: -4}}",
        3,
        35,
        "engine.kv_cache.host_offload must be a size such as 4GiB, 512MiB or 10GB, not -4",
    ),
    "a word for a duration": Case(
        "serving: {drain_timeout: soon}",
        3,
        26,
        "serving.drain_timeout must be a duration such as 500ms, 30s or 2m, not soon",
    ),
    "no time at all": Case(
        "serving: {ready_timeout: 0s}",
        3,
        26,
        "serving.ready_timeout must be a duration above 0, such as 500ms, 30s or 2m, not 0s",
    ),
    "a version that is a number": Case(
        "engine: {release: 1.10}",
        3,
        19,
        "engine.release must be a TensorRT-LLM release such as 1.2.1, not 1.10",
        'put it in quotes: "1.10"',
    ),
    "a name that is a number": Case(
        "name: 123\nmodel: {source: x}",
        1,
        7,
        "name must be 1 to 63 lower-case letters, digits, - or _, with a letter or digit at both "
        "ends, not 123",
        'put it in quotes: "123"',
        head="",
    ),
    "a name with spaces": Case(
        "name: My Chat!\nmodel: {source: x}",
        1,
        7,
        "name must be 1 to 63 lower-case letters, digits, - or _, with a letter or digit at both "
        "ends, not My Chat!",
        "write my-chat",
        head="",
    ),
    "a host with a port": Case(
        "serving: {host: 'http://x:80'}",
        3,
        17,
        "serving.host must be an address or a host name, without a port, not 'http://x:80'",
    ),
    "a single value for a list": Case(
        "serving: {gpus: 0}",
        3,
        17,
        "serving.gpus must be a list, each item a whole number from 0 to 1023, not 0",
        "write [0]",
    ),
    "a wrong item": Case(
        "serving:\n  gpus:\n    - 0\n    - one\n",
        6,
        7,
        "serving.gpus[1] must be a whole number from 0 to 1023, not one",
    ),
    "an item twice": Case(
        "serving: {gpus: [0, 1, 0]}", 3, 17, "serving.gpus lists 0 more than once"
    ),
    "a text for a section": Case(
        "name: chat\nmodel: hf://owner/name",
        2,
        8,
        "model must be a section, not hf://owner/name",
        "write model: {source: hf://owner/name}",
        head="",
    ),
    "a number for a section": Case(
        "engine: 3",
        3,
        9,
        "engine must be a section, not 3",
        "write its fields below it, indented",
    ),
    "a list for a section": Case(
        "scheduling: [interactive]", 3, 13, "scheduling must be a section, not a list"
    ),
    "an empty text": Case(
        "name: chat\nmodel: {source: ''}",
        2,
        17,
        "model.source must not be empty",
        "hf://owner/name@revision, a directory, a .gguf file, or sample:NAME.",
        head="",
    ),
    "gateway on a port of the server": Case(
        "gateway: {port: 8001}",
        3,
        17,
        "gateway and grpc both use port 8001",
        "give each its own port, or 0 for a free one",
    ),
    "gateway open to everybody": Case(
        "gateway: {host: 0.0.0.0}",
        3,
        17,
        "0.0.0.0 opens the gateway to the network without API keys",
        "write keys: FILE (toolkit keys add makes one), or listen on 127.0.0.1",
    ),
    "no classes": Case("scheduling: {classes: {}}", 3, 23, "scheduling.classes must not be empty"),
    "a class name": Case(
        "scheduling: {classes: {Fast Lane: {}}}",
        3,
        24,
        "the name Fast Lane must be 1 to 32 lower-case letters, digits, - or _, beginning with a "
        "letter",
        "write fast-lane",
    ),
    "inside a class": Case(
        "scheduling: {classes: {a: {weight: 0}}}",
        3,
        36,
        "scheduling.classes.a.weight must be a whole number from 1 to 1000, not 0",
    ),
    "no name": Case(
        "model: {source: x}",
        1,
        1,
        "name is missing",
        "Names the ensemble that clients call.",
        head="",
    ),
    "no model": Case(
        "name: chat",
        1,
        1,
        "model is missing",
        "add model: {source: hf://owner/name@revision}, or a directory",
        head="",
    ),
    "no boolean": Case(
        "engine: {kv_cache: {reuse: maybe}}",
        3,
        28,
        "engine.kv_cache.reuse must be true or false, not maybe",
        "write true or false",
    ),
    "no source": Case(
        "name: chat\nmodel: {}",
        2,
        1,
        "model.source is missing",
        "hf://owner/name@revision, a directory, a .gguf file, or sample:NAME.",
        head="",
    ),
    "a near method": Case(
        speculation("{method: medussa}"),
        4,
        25,
        f"engine.speculation.method must be one of {METHODS}, not medussa",
        "did you mean medusa?",
    ),
    "no method": Case(
        speculation("{max_draft_len: 2}"),
        4,
        3,
        f"engine.speculation.method is missing; it is one of {METHODS}",
    ),
    "a method for the section": Case(
        speculation("ngram"),
        4,
        16,
        "engine.speculation must be a section, not ngram",
        "write speculation: {method: ngram}",
    ),
    "inside a method": Case(
        speculation("{method: ngram, max_draft_len: 0}"),
        4,
        47,
        "engine.speculation.max_draft_len must be a whole number from 1 to 32, not 0",
    ),
    "a draft without a source": Case(
        speculation("{method: draft_model}"), 4, 3, "engine.speculation.draft is missing"
    ),
}

UNKNOWN_KEYS = {
    "a section misspelt": Case("engines: {}", 3, 1, "unknown key engines", "did you mean engine?"),
    "a field misspelt": Case(
        "quantization: {weight: fp8}",
        3,
        16,
        "unknown key weight in quantization",
        "did you mean weights?",
    ),
    "camel case": Case(
        "engine: {limits: {maxBatchSize: 3}}",
        3,
        19,
        "unknown key maxBatchSize in engine.limits",
        "did you mean max_batch_size?",
    ),
    "a dash": Case(
        "serving: {drain-timeout: 3s}",
        3,
        11,
        "unknown key drain-timeout in serving",
        "did you mean drain_timeout?",
    ),
    "of another section": Case(
        "engine:\n  max_batch_size: 3",
        4,
        3,
        "unknown key max_batch_size in engine",
        "max_batch_size belongs under engine.limits",
    ),
    "of several sections": Case("source: x", 3, 1, "unknown key source", PLACES),
    "of the top level": Case(
        "engine: {quantization: {}}",
        3,
        10,
        "unknown key quantization in engine",
        "quantization belongs under the top level",
    ),
    "misspelt in another section": Case(
        "max_batchsize: 3",
        3,
        1,
        "unknown key max_batchsize",
        "did you mean max_batch_size, under engine.limits?",
    ),
    "of another method": Case(
        speculation("{method: ngram, draft: {source: x}}"),
        4,
        32,
        "unknown key draft in engine.speculation",
        "draft belongs under engine.speculation (method draft_model)",
    ),
    "a name of TensorRT-LLM": Case(
        "engine: {limits: {tensor_parallel_size: 2}}",
        3,
        19,
        "unknown key tensor_parallel_size in engine.limits",
        "here it is called engine.parallelism.tensor",
    ),
    "a name of vLLM": Case(
        "max_model_len: 4096",
        3,
        1,
        "unknown key max_model_len",
        "here it is called engine.limits.max_seq_len",
    ),
    "unlike any": Case(
        "engine: {limits: {zzz: 3}}",
        3,
        19,
        "unknown key zzz in engine.limits",
        "known here: max_batch_size, max_input_len, max_num_tokens, max_seq_len",
    ),
    "that YAML 1.1 reads as true": Case(
        "on: 1",
        3,
        1,
        "unknown key on",
        "known here: engine, gateway, model, name, quantization, scheduling, serving",
    ),
    "in a class": Case(
        "scheduling: {classes: {a: {ttft: 3}}}",
        3,
        28,
        "unknown key ttft in scheduling.classes.a",
        "did you mean ttft_ms?",
    ),
}

CONTRADICTIONS = {
    "a prompt longer than a sequence": Case(
        "engine: {limits: {max_input_len: 200, max_seq_len: 200}}",
        3,
        34,
        "max_input_len (200) must be below max_seq_len (200), or no token could be generated",
        "lower max_input_len or raise max_seq_len",
    ),
    "a default that does not fit": Case(
        "engine: {limits: {max_seq_len: 200}}",
        3,
        32,
        "max_input_len (3072 by default) must be below max_seq_len (200), or no token could be "
        "generated",
    ),
    "a step smaller than the batch": Case(
        "engine: {limits: {max_num_tokens: 10}}",
        3,
        35,
        "max_num_tokens (10) is below max_batch_size (64 by default), but every running request "
        "needs a token in each step",
        "set max_num_tokens to 64 or more",
    ),
    "a prompt longer than a step": Case(
        "engine: {batching: {chunked_prefill: false}}",
        3,
        38,
        "with chunked_prefill off a whole prompt has to fit in one step, but max_num_tokens (2048 "
        "by default) is below max_input_len (3072 by default)",
        "set max_num_tokens to 3072 or more, or turn engine.batching.chunked_prefill on",
    ),
    "one port twice": Case(
        "serving: {ports: {http: 8001}}",
        3,
        25,
        "http and grpc both use port 8001",
        "give each its own port, or 0 for a free one",
    ),
    "fewer GPUs than parts": Case(
        "engine: {parallelism: {tensor: 2}}",
        3,
        32,
        "2 GPUs are needed (tensor 2 x pipeline 1 x replicas 1), but serving.gpus lists 1",
        "list exactly the GPUs that the replicas use, or change engine.parallelism or "
        "serving.replicas",
    ),
    "more GPUs than replicas": Case(
        "engine: {runtime: pytorch}\nserving: {gpus: [0, 1]}",
        4,
        17,
        "1 GPU is needed (tensor 1 x pipeline 1 x replicas 1), but serving.gpus lists 2",
    ),
    "more replicas than GPUs": Case(
        "engine: {runtime: tensorrt}\nserving: {replicas: 2}",
        4,
        21,
        "2 GPUs are needed (tensor 1 x pipeline 1 x replicas 2), but serving.gpus lists 1",
    ),
    "a reserved name": Case(
        "name: preprocessing\nmodel: {source: x}",
        1,
        7,
        "the name 'preprocessing' is taken by a model inside the repository",
        "choose another, such as preprocessing-service",
        head="",
    ),
    "a draft from nowhere": Case(
        speculation("{method: draft_model, draft: {distill_steps: 3}}"),
        4,
        38,
        "a draft comes from one place, but neither source nor derive_layers is given",
        "give source (a draft model) or derive_layers (layers kept of the target)",
    ),
    "a draft from two places": Case(
        speculation("{method: draft_model, draft: {source: x, derive_layers: 4}}"),
        4,
        72,
        "a draft comes from one place, but both source and derive_layers is given",
    ),
}

NOT_YAML = {
    "a tab": Case("engine:\n\tlimits: {}", 4, 1, "a tab is used for indentation"),
    "an open quote": Case("engine: 'x\n", 3, 9, "the quote that opens here is never closed"),
    "an open bracket": Case(
        "serving: {gpus: [0, 1}",
        3,
        17,
        "the bracket that opens here is not closed, or a comma is missing inside",
        "quote texts that contain brackets, braces or commas",
    ),
    "two colons": Case(
        "engine: runtime: auto",
        3,
        16,
        "a second ': ' on one line",
        "put the value in quotes, or the key on a line of its own",
    ),
    "no colon": Case("engine\nserving: {}", 3, 1, "a ':' is missing", "write key: value"),
    "uneven indentation": Case(
        "engine:\n    limits: {}\n  kv_cache: {}",
        5,
        3,
        "this line is indented otherwise than those it belongs to",
        "line it up with the other keys of its section",
    ),
    "an at sign": Case(
        "engine: @x", 3, 9, "a value cannot begin like this", "put the value in quotes"
    ),
    "a second document": Case(
        "---\nname: b",
        3,
        1,
        "a second document begins here",
        "keep one deployment per file; remove the ---",
    ),
    "a key twice": Case(
        "name: b", 3, 1, "name is given twice, first in line 1", "keep one of the two"
    ),
    "a key twice further down": Case(
        "engine:\n  limits: {}\n  limits: {}",
        5,
        3,
        "limits is given twice, first in line 4",
    ),
    "an unknown alias": Case("engine: *e", 3, 9, "the alias *e has no anchor &e before it"),
    "an endless alias": Case(
        "engine: &e [*e]", 3, 9, "an alias (*) stands inside its own anchor (&)"
    ),
    "a merge key": Case(
        "engine: {<<: {runtime: auto}}", 3, 10, "merge keys (<<) are not supported"
    ),
    "a key that is a list": Case("? [a]\n: b", 3, 3, "a key has to be a name"),
    "a tag": Case(
        "engine: !!python/object:os.system {}",
        3,
        9,
        "the tag tag:yaml.org,2002:python/object:os.system is not supported",
        "remove the tag",
    ),
    "a control character": Case("x: a\x01b", 3, 5, "the character U+0001 is not allowed in YAML"),
    "a list": Case(
        "- name", 1, 1, "a deployment file holds sections such as name: and model:", head=""
    ),
    "a word": Case(
        "name", 1, 1, "a deployment file holds sections such as name: and model:", head=""
    ),
}

ALL = {
    f"{group}: {name}": case
    for group, cases in {
        "value": WRONG_VALUES,
        "key": UNKNOWN_KEYS,
        "contradiction": CONTRADICTIONS,
        "yaml": NOT_YAML,
    }.items()
    for name, case in cases.items()
}


def refused(path: Path, content: str | bytes) -> SpecError:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SpecError) as caught:
        load(path, environ={})
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_a_mistake_is_told_with_its_place(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    error = refused(path, case.head + case.text)
    assert error.where == f"{path}:{case.line}:{case.column}"
    assert error.message == case.message
    if case.hint:
        assert error.hint == case.hint
    assert error.details == ()


@pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
def test_windows_line_ends_and_a_byte_order_mark_move_nothing(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    text = (case.head + case.text).replace("\n", "\r\n")
    error = refused(path, b"\xef\xbb\xbf" + text.encode())
    assert error.where == f"{path}:{case.line}:{case.column}"


def test_all_mistakes_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    error = refused(
        path,
        "name: Chat\nmodel: {sauce: x}\nengine:\n  limits: {max_batch_size: x}\n  runtim: auto\n",
    )
    assert error.where == f"{path}:1:7"
    assert [detail.removeprefix(f"{path}:") for detail in error.details] == [
        "2:1: model.source is missing "
        "(hf://owner/name@revision, a directory, a .gguf file, or sample:NAME.)",
        "2:9: unknown key sauce in model (did you mean source?)",
        f"4:28: {BATCH}x",
        "5:3: unknown key runtim in engine (did you mean runtime?)",
    ]


def test_keys_given_twice_are_all_told(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    error = refused(path, HEAD + "name: b\nmodel: {}\n")
    assert error.where == f"{path}:3:1"
    assert error.details == (
        f"{path}:4:1: model is given twice, first in line 2 (keep one of the two)",
    )


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_told(content: str, tmp_path: Path) -> None:
    error = refused(tmp_path / "deploy.yaml", content)
    assert error.message == "the file is empty"
    assert "toolkit init" in (error.hint or "")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no such file") as caught:
        load(tmp_path / "deploy.yaml")
    assert "toolkit init" in (caught.value.hint or "")


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load(tmp_path)


def test_a_huge_file_is_told(tmp_path: Path) -> None:
    error = refused(tmp_path / "deploy.yaml", HEAD + "#" * MAX_BYTES)
    assert error.message == "larger than 1 MiB: not a deployment file"


def test_a_file_that_is_not_utf8_is_told_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    error = refused(path, "name: chat\nmodel: {source: 'é".encode() + b"\xff'}\n")
    assert error.where == f"{path}:2:19"
    assert error.message == "not UTF-8: byte 0xff"


def test_deep_nesting_is_told(tmp_path: Path) -> None:
    error = refused(tmp_path / "deploy.yaml", HEAD + "x: " + "[" * 20_000)
    assert "nested too deeply" in error.message


def test_aliases_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for above, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{above}'] * 10)}]")
    error = refused(tmp_path / "deploy.yaml", HEAD + "\n".join(lines))
    assert error.message == "more than 20000 values"


def test_variable_with_one_underscore_is_no_override(tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text("name: chat\nmodel: {source: ./m}\n")
    wrong = {"TOOLKIT_ENGINE__KV_CACHE__REUSE": "false"}
    with pytest.raises(SpecError) as caught:
        load(file, environ=wrong)
    assert "TOOLKIT__ENGINE__KV_CACHE__REUSE" in str(caught.value.hint)
    load(file, environ={"TOOLKIT_WORKSPACE": "x", "TOOLKIT_OTHER__THING": "y"})


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, environ={})
    assert caught.value.hint == "name the deployment file in it"
