"""Fleet files: what they mean, and mistakes that name their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import SpecError
from toolkit.spec.fleet import is_fleet, load_fleet
from toolkit.spec.loading import load

CHAT = "name: chat\nmodel: {source: ./model}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "chat.yaml").write_text(CHAT)
    wide = "engine: {runtime: pytorch, parallelism: {tensor: 2}}\nserving: {gpus: [0, 1]}\n"
    (tmp_path / "parts" / "code.yaml").write_text(
        CHAT.replace("chat", "code") + wide + "gateway: {port: 9100}\n"
    )
    return tmp_path


def fleet(folder: Path, text: str) -> Path:
    path = folder / "fleet.yaml"
    path.write_text(text)
    return path


def test_a_model_is_a_path_or_a_section(folder: Path) -> None:
    path = fleet(folder, "models:\n  - chat.yaml\n  - {file: parts/code.yaml, replicas: 3}\n")
    loaded = load_fleet(path, environ={})
    chat, code = loaded.members
    assert (chat.deployment.name, chat.overrides) == ("chat", ())
    assert chat.place == f"{path}:2:5"
    assert code.deployment.serving.replicas == 3
    assert code.deployment.serving.gpus == (0, 1, 2, 3, 4, 5)
    assert code.overrides == ("serving.replicas=3", "serving.gpus=[0,1,2,3,4,5]")
    assert code.deployment.model.source == str(folder / "parts" / "model")
    assert load(code.path, overrides=code.overrides, environ={}).resolved() == code.deployment


def test_the_gateway_is_the_fleet_s_or_the_first_model_s(folder: Path) -> None:
    models = "models: [parts/code.yaml, chat.yaml]\n"
    assert load_fleet(fleet(folder, models), environ={}).gateway.port == 9100
    own = models + "gateway: {port: 9200, keys: keys.json}\n"
    gateway = load_fleet(fleet(folder, own), environ={}).gateway
    assert (gateway.port, gateway.keys) == (9200, str(folder / "keys.json"))


def test_overrides_and_the_environment_reach_every_model(folder: Path) -> None:
    path = fleet(folder, "models: [chat.yaml, parts/code.yaml]\n")
    loaded = load_fleet(
        path,
        overrides=["engine.limits.max_batch_size=8"],
        environ={"TOOLKIT__SERVING__HOST": "::1"},
    )
    for member in loaded.members:
        assert member.deployment.engine.limits.max_batch_size == 8
        assert member.deployment.serving.host == "::1"
        assert member.overrides == ("engine.limits.max_batch_size=8",)


def test_a_file_with_models_is_a_fleet(folder: Path) -> None:
    assert is_fleet(fleet(folder, "models: [chat.yaml]\ngpus:\n  count: ${COUNT}\n"))
    assert not is_fleet(folder / "chat.yaml")
    assert not is_fleet(folder / "absent.yaml")
    assert not is_fleet(fleet(folder, "models: ["))


MISTAKES = {
    "no models": ("models: []\n", "1:9", "models lists no file", "write"),
    "a list for a text": (
        "models:\n  - [a]\n", "2:5", "models[0] must be a section, not a list", None,
    ),
    "replicas of none": (
        "models:\n  - {file: chat.yaml, replicas: 0}\n", "2:33",
        "models[0].replicas must be a whole number from 1 to 64, not 0", None,
    ),
    "an unknown key": (
        "models: [chat.yaml]\ngpu: {type: H100}\n", "2:1", "unknown key gpu", "did you mean gpus?",
    ),
    "an unknown GPU": (
        "models: [chat.yaml]\ngpus: {type: H1000}\n", "2:14", "unknown GPU 'H1000'",
        "did you mean H100?",
    ),
    "no GPU": ("models: [chat.yaml]\ngpus: {type: cpu}\n", "2:14", "unknown GPU 'cpu'", "known: "),
    "a gateway's mistake": (
        "models: [chat.yaml]\ngateway: {host: 0.0.0.0}\n", "2:17",
        "0.0.0.0 opens the gateway to the network without API keys", "keys: FILE",
    ),
    "whose replicas": (
        "models: [chat.yaml]\ngateway: {replicas: ['b:8001']}\n", "2:21",
        "further Tritons serve one model, and this gateway is for all of them", "the deployment",
    ),
    "no such file": (
        "models:\n  - {file: chat2.yaml}\n", "2:5", "there is no deployment file", "paths count",
    ),
    "one name twice": (
        "models:\n  - chat.yaml\n  - chat.yaml\n", "3:5", "two models are called chat",
        "list it once: {file: chat.yaml, replicas: 2}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_names_its_place(folder: Path, case: tuple[str, str, str, str | None]) -> None:
    text, at, message, hint = case
    path = fleet(folder, text)
    with pytest.raises(SpecError) as caught:
        load_fleet(path, environ={})
    assert caught.value.where == f"{path}:{at}"
    assert caught.value.message.startswith(message)
    assert (hint or "") in (caught.value.hint or "")


def test_a_mistake_in_a_model_s_file_names_that_file(folder: Path) -> None:
    (folder / "chat.yaml").write_text(CHAT + "serving: {gpuss: [0]}\n")
    with pytest.raises(SpecError) as caught:
        load_fleet(fleet(folder, "models: [chat.yaml]\n"), environ={})
    assert caught.value.where == f"{folder / 'chat.yaml'}:3:11"


def test_a_fleet_is_no_deployment_and_says_so(folder: Path) -> None:
    path = fleet(folder, "models: [chat.yaml]\n")
    with pytest.raises(SpecError, match="lists models") as caught:
        load(path, environ={})
    assert f"toolkit plan {path}" in (caught.value.hint or "")
    # A slip in a deployment file is told as one.
    mistaken = fleet(folder, "name: chat\nmodels: {source: ./model}\n")
    assert not is_fleet(mistaken)
    with pytest.raises(SpecError, match="model is missing"):
        load(mistaken, environ={})
