"""Engine-path deployments become LLM API ones that pass the release's own check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_shapes import LLAMA_1B, LLAMA_8B, LLAMA_70B

from toolkit.engine.nvidia import target_of
from toolkit.engine.pytorch import check
from toolkit.errors import SpecError, UnsupportedError
from toolkit.pipeline.migration import Migration, migrate
from toolkit.pipeline.migration_rules import RULES
from toolkit.releases import release
from toolkit.spec.loading import load
from toolkit.spec.nvidia import TensorRT

RELEASES = ("1.2.1", "1.3.0rc27", "1.4.0rc1")
HEAD = "name: chat\nmodel: {source: ./model}\n"
ENGINES: dict[str, str] = {
    "plain": "engine: {runtime: tensorrt}\n",
    "one H100, fp8, tuned": """\
# 8B on one H100
quantization: {weights: fp8, kv_cache: fp8}
engine:
  runtime: tensorrt  # compiled
  release: 1.2.1
  limits: {max_batch_size: 128, max_input_len: 3072, max_seq_len: 4096, max_num_tokens: 8192}
  # measured in spring
  tensorrt:
    multiple_profiles: true
    low_latency_gemm: true
    workers: 1
serving: {gpu: H100}
""",
    "four A100, int4": """\
quantization: {weights: int4_awq, block_size: 128}
engine:
  runtime: tensorrt
  parallelism: {tensor: 4}
  tensorrt: {reduce_fusion: true, gemm_plugin: auto}
serving: {gpu: A100-80, gpus: [0, 1, 2, 3]}
""",
    "draft model": """\
engine:
  runtime: tensorrt
  speculation:
    method: draft_model
    draft: {source: ./draft}  # the small one
    max_draft_len: 4
serving: {gpu: H100}
""",
    "medusa": """\
engine:
  runtime: tensorrt
  speculation: {method: medusa, source: ./heads}
serving: {gpu: H100}
""",
    "eagle": """\
engine:
  runtime: tensorrt
  # a tree
  speculation:
    method: eagle
    source: ./head
    num_layers: 3
  dtype: bfloat16
""",
    "lookahead": """\
engine:
  runtime: tensorrt
  speculation:
    method: lookahead
    window_size: 4
    ngram_size: 4
""",
    "smooth quant": """\
quantization:
  weights: int8_sq
  kv_cache: int8
engine:
  runtime: tensorrt
  kv_cache: {reuse: false}
  batching: {chunked_prefill: false}
  limits: {max_num_tokens: 4096}
serving: {gpu: A100-80}
""",
    "smooth quant on a newer card": """\
quantization: {weights: int8_sq}
engine: {runtime: tensorrt, release: 1.0.0}
serving: {gpu: L40S, image: "nvcr.io/nvidia/tritonserver:25.09-trtllm-python-py3"}
""",
    "adapters": """\
engine:
  runtime: tensorrt
  lora: {adapters: {sql: ./sql, chat: ./chat}, max_rank: 32}
serving: {gpu: L40S}
""",
    "queue, graphs and logits": """\
engine:
  runtime: tensorrt
  batching: {queue_timeout: 5s, policy: max_utilization}
  cuda_graphs: {enabled: true, cache_size: 16}
  guided_decoding: xgrammar
  tensorrt:
    gather_context_logits: true
    gather_generation_logits: true
    opt_num_tokens: 32
""",
    "long context, host memory": """\
quantization: {weights: fp8, kv_cache: fp8}
engine:
  runtime: tensorrt
  limits: {max_batch_size: 8, max_input_len: 100000, max_seq_len: 110000, max_num_tokens: 8192}
  kv_cache: {host_offload: 32GiB, size: 40GiB}
serving: {gpu: H200}
""",
}


def migrated(path: Path, body: str, to: str) -> Migration:
    text = HEAD + body
    path.write_text(text)
    return migrate(load(path, environ={}), text, to, environ={})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "d.yaml"


@pytest.mark.parametrize("to", RELEASES)
@pytest.mark.parametrize("body", ENGINES.values(), ids=ENGINES.keys())
def test_every_engine_deployment_becomes_one_that_passes(file: Path, body: str, to: str) -> None:
    made = migrated(file, body, to)
    new = file.with_name("new.yaml")
    new.write_text(made.text)
    again = load(new, environ={}).deployment
    assert again == made.deployment
    assert not made.rewritten
    target = target_of(again)
    assert (target.runtime, target.release.version) == ("pytorch", to)
    arch = LLAMA_70B if again.engine.parallelism.tensor == 4 else LLAMA_8B
    check(again.engine, again.quantization, arch, target.release, target.gpu, draft=LLAMA_1B)
    assert made.rebuilt


@pytest.mark.parametrize("body", ENGINES.values(), ids=ENGINES.keys())
def test_comments_and_untouched_lines_stay(file: Path, body: str) -> None:
    made = migrated(file, body, "1.3.0rc27")
    touched = {change.field.rpartition(".")[2] for change in made.changes}
    touched |= {change.field.split(".")[1] for change in made.changes}
    for line in HEAD.splitlines() + body.splitlines():
        name = line.strip().partition(":")[0]
        if line.startswith(("name", "model", "  limits", "  parallelism", "# 8B")):
            assert line in made.text.splitlines(), name
    assert made.text.count("# compiled") == body.count("# compiled")
    assert "# measured in spring" not in made.text


def test_every_change_says_why_and_where_it_is_written(file: Path) -> None:
    for body in ENGINES.values():
        for change in migrated(file, body, "1.4.0rc1").changes:
            assert change.rule.gone
            assert change.rule.instead
            assert change.rule.source.startswith("https://")


def change_of(made: Migration, field: str) -> tuple[Any, Any, bool]:
    change = next(one for one in made.changes if one.field == field)
    return change.before, change.after, change.exact


def test_what_has_no_counterpart_is_marked(file: Path) -> None:
    made = migrated(file, ENGINES["medusa"], "1.2.1")
    assert change_of(made, "engine.speculation")[1:] == (None, False)
    assert made.deployment.engine.speculation is None
    made = migrated(file, ENGINES["lookahead"], "1.2.1")
    assert change_of(made, "engine.speculation")[1] == {"method": "ngram", "max_draft_len": 3}
    made = migrated(file, ENGINES["queue, graphs and logits"], "1.3.0rc27")
    gone = {change.field for change in made.changes if not change.exact}
    assert gone == {
        "engine.batching.queue_timeout",
        "engine.cuda_graphs.cache_size",
        "engine.tensorrt.gather_context_logits",
        "engine.tensorrt.gather_generation_logits",
        "engine.tensorrt.opt_num_tokens",
    }


def test_what_means_something_else_without_a_changed_line_is_said(file: Path) -> None:
    """Absent, CUDA graphs are off in engines and on in the LLM API."""
    absent = migrated(file, ENGINES["plain"], "1.3.0rc27")
    (told,) = absent.meanings
    assert told.field == "engine.cuda_graphs.enabled"
    assert "false" in told.instead
    assert not any("cuda_graphs" in change.field for change in absent.changes)
    for given in ("true", "false"):
        body = f"engine: {{runtime: tensorrt, cuda_graphs: {{enabled: {given}}}}}\n"
        assert migrated(file, body, "1.3.0rc27").meanings == ()
    served = migrated(file, "engine: {runtime: pytorch, release: 1.2.1}\n", "1.3.0rc27")
    assert served.meanings == ()


def test_formats_without_kernels_become_the_nearest_of_the_card(file: Path) -> None:
    made = migrated(file, ENGINES["smooth quant"], "1.3.0rc27").deployment
    assert (made.quantization.weights, made.quantization.kv_cache) == ("int4_awq", "none")
    made = migrated(file, ENGINES["smooth quant on a newer card"], "1.3.0rc27").deployment
    assert made.quantization.weights == "fp8"


def test_the_image_of_the_old_release_goes_and_that_of_the_same_stays(file: Path) -> None:
    body = ENGINES["smooth quant on a newer card"]
    assert migrated(file, body, "1.2.1").deployment.serving.image is None
    kept = body.replace("1.0.0", "1.2.1")
    assert migrated(file, kept, "1.2.1").deployment.serving.image is not None


def test_variables_of_the_file_stay_variables(file: Path) -> None:
    text = HEAD.replace("./model", '"${MODEL}"') + ENGINES["plain"]
    file.write_text(text)
    environ = {"MODEL": "./there"}
    made = migrate(load(file, environ=environ), text, "1.2.1", environ=environ)
    assert 'source: "${MODEL}"' in made.text
    assert made.deployment.model.source == "./there"


def test_a_file_with_anchors_is_written_anew(file: Path) -> None:
    body = "engine: {runtime: tensorrt, limits: &l {max_batch_size: 8}}\n"
    made = migrated(file, body, "1.2.1")
    assert made.rewritten
    file.write_text(made.text)
    assert load(file, environ={}).deployment == made.deployment


def test_a_file_of_the_llm_api_only_changes_its_release(file: Path) -> None:
    made = migrated(file, "engine: {runtime: pytorch, release: 1.2.1}\n", "1.3.0rc27")
    assert [change.field for change in made.changes] == ["engine.release"]
    assert made.rebuilt == ()


def test_there_is_nothing_to_migrate_on_a_cpu(file: Path) -> None:
    with pytest.raises(SpecError, match="no engines"):
        migrated(file, "engine: {runtime: openvino}\n", "1.2.1")
    with pytest.raises(SpecError, match="TensorRT-LLM 9"):
        migrated(file, ENGINES["plain"], "9.9")


def test_every_field_of_engines_alone_has_a_rule() -> None:
    ruled = {rule.field for rule in RULES}
    assert {f"engine.tensorrt.{name}" for name in TensorRT.model_fields} <= ruled
    old, new = release("1.2.1"), release("1.3.0rc27")
    only = {term.name for term in old.terms if not term.llm_args}
    only |= {term.name for term in old.terms} - {term.name for term in new.terms}
    assert only - {"serving.gpus"} <= ruled


def test_the_check_would_have_refused_the_old_file(file: Path) -> None:
    """The changes are needed: without them the release refuses."""
    file.write_text(HEAD + ENGINES["queue, graphs and logits"])
    old = load(file, environ={}).deployment
    with pytest.raises(UnsupportedError):
        check(old.engine, old.quantization, LLAMA_8B, release("1.3.0rc27"))
