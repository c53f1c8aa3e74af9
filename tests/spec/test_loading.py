"""Loading good files: YAML's traps, the environment, flags, and paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import SpecError
from toolkit.spec.loading import LoadedDeployment, load
from toolkit.spec.models import DraftModel, Eagle3, NGram

HEAD = "name: chat\nmodel: {source: ./model}\n"
Load = Callable[..., LoadedDeployment]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    def read(text: str = "", *flags: str, head: str = HEAD, **environ: str) -> LoadedDeployment:
        path = tmp_path / "deploy.yaml"
        path.write_text(head + text, encoding="utf-8")
        return load(path, overrides=flags, environ=environ)

    return read


@pytest.fixture
def refuse(read: Load) -> Callable[..., SpecError]:
    def refuse(*arguments: str, **environ: str) -> SpecError:
        with pytest.raises(SpecError) as caught:
            read(*arguments, **environ)
        return caught.value

    return refuse


def test_a_name_and_a_model_are_enough(read: Load, tmp_path: Path) -> None:
    loaded = read()
    assert loaded.deployment.engine.limits.max_batch_size == 64
    assert loaded.path == tmp_path / "deploy.yaml"
    assert loaded.data == {"name": "chat", "model": {"source": "./model"}}


@pytest.mark.parametrize("word", ["no", "on", "y", "off", "yes", "n"])
def test_words_that_yaml_once_took_for_booleans_stay_texts(read: Load, word: str) -> None:
    classes = read(f"scheduling: {{classes: {{{word}: {{}}}}}}").deployment.scheduling.classes
    assert list(classes) == [word]
    assert read(head=f"name: {word}\nmodel: {{source: x}}\n").deployment.name == word


def test_quoted_numbers_and_dates_are_texts(read: Load) -> None:
    assert read(head="name: '123'\nmodel: {source: 2024-01-01}\n").deployment.name == "123"


def test_a_whole_number_is_good_for_a_fraction(read: Load) -> None:
    assert read("engine: {kv_cache: {free_memory_fraction: 1}}").deployment.engine == (
        read("engine: {kv_cache: {free_memory_fraction: 1.0}}").deployment.engine
    )


def test_a_section_with_all_its_lines_commented_out_means_its_defaults(read: Load) -> None:
    text = "engine:\n  limits:\n    # max_batch_size: 1\n  speculation:\nserving:\n"
    assert read(text).deployment == read().deployment


def test_anchors_and_aliases(read: Load) -> None:
    text = "scheduling: {classes: {a: &a {weight: 3}, b: *a}}"
    classes = read(text).deployment.scheduling.classes
    assert classes["a"] == classes["b"]
    assert classes["b"].weight == 3


def test_the_first_class_stays_first(read: Load) -> None:
    classes = read("scheduling: {classes: {z: {}, a: {}}}").deployment.scheduling.classes
    assert list(classes) == ["z", "a"]


def test_port_0_may_stand_more_than_once(read: Load) -> None:
    ports = read("serving: {ports: {http: 0, grpc: 0, metrics: 0}}").deployment.serving.ports
    assert (ports.http, ports.grpc, ports.metrics) == (0, 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "engine: {runtime: openvino}\nserving: {replicas: 2}",
        "engine: {runtime: openvino}\nserving: {gpus: []}",
        "engine: {runtime: pytorch, parallelism: {tensor: 2}}\n"
        "serving: {replicas: 2, gpus: [0, 1, 2, 3]}",
        "engine: {batching: {chunked_prefill: false}, limits: {max_num_tokens: 3072}}",
    ],
)
def test_what_fits_together_is_accepted(read: Load, text: str) -> None:
    read(text)


def test_tagged_texts(read: Load) -> None:
    assert read(head="name: !!str 123\nmodel: {source: x}\n").deployment.name == "123"


# ${NAME} references


def test_a_reference_takes_the_type_that_the_text_would_have(read: Load) -> None:
    text = "serving:\n  host: ${HOST}\n  replicas: ${COPIES:-2}\n"
    serving = read(text, HOST="10.0.0.1").deployment.serving
    assert (serving.host, serving.replicas) == ("10.0.0.1", 2)


def test_a_default_serves_an_empty_variable_too(read: Load) -> None:
    assert read("serving: {host: '${H:-a.b}'}", H="").deployment.serving.host == "a.b"
    assert read("serving: {host: '${H:-a.b}'}", H="c.d").deployment.serving.host == "c.d"


def test_references_within_a_text_and_dollar_signs(read: Load) -> None:
    head = 'name: chat\nmodel: {source: "${ROOT}/$${x}/$HOME/${ROOT}"}\n'
    assert read(head=head, ROOT="/m").deployment.model.source == "/m/${x}/$HOME//m"


def test_a_variable_cannot_smuggle_structure_in(refuse: Callable[..., SpecError]) -> None:
    error = refuse("engine:\n  limits: ${LIMITS}\n", LIMITS="{max_batch_size: 1}")
    assert error.message == "engine.limits must be a section, not {max_batch_size: 1}"


def test_unset_variables_are_all_told_with_their_places(
    refuse: Callable[..., SpecError], tmp_path: Path
) -> None:
    error = refuse("serving:\n  host: ${A}-${B:-x}-${C}\n  replicas: ${D}\n", D="1")
    path = tmp_path / "deploy.yaml"
    assert error.where == f"{path}:4:9"
    assert error.message == "the environment variable A is not set"
    assert error.hint == "export A=..., or give a default: ${A:-value}"
    assert error.details[0].startswith(f"{path}:4:22: the environment variable C is not set")


@pytest.mark.parametrize("reference", ["${}", "${1X}", "${A-b}", "${A:b}", "${A", "${ A }"])
def test_a_malformed_reference_is_told(refuse: Callable[..., SpecError], reference: str) -> None:
    error = refuse(f"serving: {{host: 'x{reference}'}}", A="a")
    assert (error.where or "").endswith(":3:19")
    assert "is not a reference to an environment variable" in error.message


def test_a_quoted_reference_stays_a_text(refuse: Callable[..., SpecError]) -> None:
    error = refuse("serving: {replicas: '${N}'}", N="2")
    assert error.message.endswith("not '2'")


# Overrides


def test_precedence_is_file_then_environment_then_flag(read: Load) -> None:
    text = "engine: {limits: {max_batch_size: 1, max_num_tokens: 100, max_input_len: 10}}"
    limits = read(
        text,
        "engine.limits.max_batch_size=3",
        TOOLKIT__ENGINE__LIMITS__MAX_BATCH_SIZE="2",
        TOOLKIT__ENGINE__LIMITS__MAX_NUM_TOKENS="200",
    ).deployment.engine.limits
    assert (limits.max_batch_size, limits.max_num_tokens, limits.max_input_len) == (3, 200, 10)


def test_the_last_flag_wins(read: Load) -> None:
    assert read("", "serving.replicas=2", "serving.replicas=3").deployment.serving.replicas == 3


def test_an_override_adds_sections_that_the_file_lacks(read: Load) -> None:
    loaded = read("", "engine.speculation.method=ngram", "engine.speculation.max_draft_len=7")
    assert loaded.deployment.engine.speculation == NGram(max_draft_len=7)
    assert loaded.data["engine"] == {"speculation": {"method": "ngram", "max_draft_len": 7}}


def test_an_override_fills_an_empty_section(read: Load) -> None:
    loaded = read("engine:\n", "engine.limits.max_batch_size=5")
    assert loaded.deployment.engine.limits.max_batch_size == 5


def test_an_override_replaces_a_whole_section(read: Load) -> None:
    text = "engine: {speculation: {method: eagle3, source: ./head}}"
    assert isinstance(read(text).deployment.engine.speculation, Eagle3)
    loaded = read(text, "engine.speculation={method: ngram}")
    assert loaded.deployment.engine.speculation == NGram()


def test_an_override_of_an_alias_leaves_its_anchor_alone(read: Load) -> None:
    text = "scheduling: {classes: {a: &a {weight: 3}, b: *a}}"
    classes = read(text, "scheduling.classes.b.weight=5").deployment.scheduling.classes
    assert (classes["a"].weight, classes["b"].weight) == (3, 5)


@pytest.mark.parametrize("field", ["serving.gpus[1]", "serving.gpus.1"])
def test_items_of_a_list_have_numbers(read: Load, field: str) -> None:
    text = "engine: {runtime: pytorch}\nserving: {replicas: 2, gpus: [0, 1]}"
    assert read(text, f"{field}=5").deployment.serving.gpus == (0, 5)
    variable = "TOOLKIT__SERVING__GPUS__1"
    assert read(text, **{variable: "4"}).deployment.serving.gpus == (0, 4)


def test_an_override_appends_to_a_list(read: Load) -> None:
    assert read("serving: {gpus: [4]}", "serving.gpus[1]=5").deployment.serving.gpus == (4, 5)


def test_a_section_in_the_environment_gives_way_to_its_fields(read: Load) -> None:
    ports = read(
        TOOLKIT__SERVING__PORTS__HTTP="9", TOOLKIT__SERVING__PORTS="{http: 1, grpc: 2}"
    ).deployment.serving.ports
    assert (ports.http, ports.grpc) == (9, 2)


def test_a_flag_may_hold_a_dollar_sign_and_an_equals_sign(read: Load) -> None:
    source = read("", "model.source=/a=b/${C}").deployment.model.source
    assert source == "/a=b/${C}"


def test_variables_of_other_purposes_are_left_alone(read: Load) -> None:
    assert read(TOOLKIT_CACHE="/x", TOOLKIT="y").deployment == read().deployment


MISTAKES = {
    "engine.limits.max_batch_size=x": "engine.limits.max_batch_size must be a whole number",
    "engine.limit.max_batch_size=3": "unknown key limit in engine",
    "engine.limits.max_batch_size": "an override is a dotted field, = and a value",
    "=3": "an override is a dotted field, = and a value",
    "engine..limits=3": "an override is a dotted field, = and a value",
    "serving.gpus[x]=3": "an override is a dotted field, = and a value",
    "name.first=x": "name is a single value",
    "model[0]=x": "model is a section, not a list",
    "serving.gpus[3]=1": "serving.gpus[3] is past the end: the list in the file holds 0",
    "engine={a: b": "the bracket that opens here is not closed",
    "model.source=@x": "a value cannot begin like this",
    "model.source=": "model.source must be a text, not empty",
    "name=12": "name must be 1 to 63 lower-case letters",
    "serving.ports={http: 1, http: 2}": "http is given twice",
}


@pytest.mark.parametrize("flag", MISTAKES)
def test_a_wrong_flag_is_told_as_it_was_given(refuse: Callable[..., SpecError], flag: str) -> None:
    error = refuse("", flag)
    assert error.where == f"--set {flag}"
    assert error.message.startswith(MISTAKES[flag])


@pytest.mark.parametrize(
    "field", [".".join("a" * 3000), f"serving.gpus[{'9' * 5000}]", "serving.gpus[\u0663]"]
)
def test_a_field_that_no_file_can_have_is_told(
    refuse: Callable[..., SpecError], field: str
) -> None:
    assert refuse("", f"{field}=1").message == "an override is a dotted field, = and a value"


def test_a_variable_of_too_many_parts_is_told(refuse: Callable[..., SpecError]) -> None:
    assert refuse("", **{f"TOOLKIT{'__A' * 3000}": "1"}).message == "the name has too many parts"


def test_a_key_given_twice_in_a_flag_has_no_line(refuse: Callable[..., SpecError]) -> None:
    error = refuse("", "serving.ports={http: 1, http: 2}")
    assert error.message == "http is given twice"


def test_a_name_into_a_list_is_told(refuse: Callable[..., SpecError]) -> None:
    error = refuse("serving: {gpus: [0]}", "serving.gpus.first=1")
    assert error.message == "serving.gpus is a list; its parts have numbers, not names"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("TOOLKIT__NAM", "unknown key nam"),
        ("TOOLKIT____NAME", "a part of the name is empty"),
        ("TOOLKIT__SERVING__REPLICAS", "serving.replicas must be a whole number from 1 to 64"),
    ],
)
def test_a_wrong_variable_is_named(
    refuse: Callable[..., SpecError], variable: str, message: str
) -> None:
    error = refuse("", **{variable: "x"})
    assert error.where == f"environment variable {variable}"
    assert error.message.startswith(message)


def test_mistakes_of_the_file_come_before_those_of_flags(
    refuse: Callable[..., SpecError],
) -> None:
    error = refuse("engine: {runtim: auto}", "serving.replicas=x")
    assert error.message == "unknown key runtim in engine"
    assert error.details[0].startswith("--set serving.replicas=x: serving.replicas must be")


# Paths


def test_paths_count_from_the_files_folder(
    read: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    text = (
        "quantization: {calibration: {source: texts/mine.jsonl}}\n"
        "engine: {speculation: {method: draft_model, draft: {source: ../draft}}}\n"
    )
    resolved = read(text).resolved()
    assert resolved.model.source == str(tmp_path / "model")
    assert resolved.quantization.calibration.source == str(tmp_path / "texts/mine.jsonl")
    assert isinstance(resolved.engine.speculation, DraftModel)
    assert resolved.engine.speculation.draft.source == str(tmp_path.parent / "draft")


def test_a_relative_file_name_makes_absolute_sources(
    read: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read()
    monkeypatch.chdir(tmp_path)
    assert load(Path("deploy.yaml"), environ={}).resolved().model.source == str(tmp_path / "model")


@pytest.mark.parametrize("source", ["hf://owner/name@main", "sample:smollm2-135m", "/abs/model"])
def test_other_sources_stay_as_they_are(read: Load, source: str) -> None:
    assert read("", f"model.source={source}").resolved().model.source == source


def test_a_home_folder_is_found(read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    loaded = read("", "model.source=~/model")
    assert loaded.resolved().model.source == "/home/someone/model"


def test_a_home_that_nobody_has_is_an_ordinary_folder(read: Load, tmp_path: Path) -> None:
    loaded = read("", "model.source=~nobody-of-this-name/model")
    assert loaded.resolved().model.source == str(tmp_path / "~nobody-of-this-name/model")


@pytest.mark.parametrize("source", ["builtin", "cnn_dailymail"])
def test_calibration_names_are_not_paths(read: Load, source: str) -> None:
    loaded = read("", f"quantization.calibration.source={source}")
    assert loaded.resolved().quantization.calibration.source == source


def test_nothing_else_changes(read: Load) -> None:
    loaded = read("engine: {speculation: {method: eagle3, source: hf://a/b}}")
    kept: dict[str, Any] = loaded.resolved().model_dump(exclude={"model"})
    assert kept == loaded.deployment.model_dump(exclude={"model"})
