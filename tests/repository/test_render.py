from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.errors import SpecError, UnsupportedError
from toolkit.repository import layout
from toolkit.repository.render import render
from toolkit.spec.models import Deployment

Sources = tuple[Path, Path]


def digests(repository: Path) -> dict[str, str]:
    return {
        str(file.relative_to(repository)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(repository.rglob("*"))
        if file.is_file()
    }


def changed(deployment: Deployment, **engine: object) -> Deployment:
    content = deployment.model_dump(mode="json", exclude_defaults=True)
    return Deployment.model_validate(content | {"engine": engine})


def test_the_same_inputs_give_the_same_bytes(
    deployment: Deployment, sources: Sources, rendered: Path, tmp_path: Path
) -> None:
    again = render(deployment, *sources, tmp_path / "elsewhere").path
    assert digests(again) == digests(rendered)


def test_a_setting_changes_settings_alone(
    deployment: Deployment, sources: Sources, rendered: Path, tmp_path: Path
) -> None:
    other = changed(deployment, kv_cache={"reuse": False})
    again = digests(render(other, *sources, tmp_path / "elsewhere").path)
    before = digests(rendered)
    assert again.keys() == before.keys()
    assert {name for name in again if again[name] != before[name]} == {"chat/1/settings.json"}


def test_settings_say_what_the_deployment_says(
    deployment: Deployment, sources: Sources, tmp_path: Path
) -> None:
    other = changed(
        deployment,
        limits={"max_batch_size": 7, "max_input_len": 100, "max_seq_len": 200},
        kv_cache={"reuse": False, "size": "64MiB"},
        batching={"max_queue_size": 9, "responses_per_core": 50},
        speculation={"method": "ngram", "max_draft_len": 4},
    )
    render(other, *sources, tmp_path / "repository")
    settings = json.loads((tmp_path / "repository/chat/1/settings.json").read_text())
    assert settings["limits"] == {"max_input_len": 100, "max_seq_len": 200}
    assert settings["streaming"] == {"responses_per_core": 50}
    engine = settings["engine"]
    assert (engine["max_batch_size"], engine["max_queue_size"]) == (7, 9)
    assert (engine["kv_cache_reuse"], engine["kv_cache_bytes"]) == (False, 64 * 2**20)
    assert (engine["speculation"], engine["max_draft_len"]) == ("ngram", 4)


def test_weights_are_not_copied(sources: Sources, rendered: Path) -> None:
    original = sources[0] / "openvino_model.bin"
    assert original.samefile(rendered / "chat/1/engine/openvino_model.bin")


def test_what_was_there_is_replaced_whole(
    deployment: Deployment, sources: Sources, rendered: Path, tmp_path: Path
) -> None:
    out = tmp_path / "repository"
    (out / "old_model").mkdir(parents=True)
    (out / "old_model/config.pbtxt").write_text("old")
    render(deployment, *sources, out)
    assert digests(out) == digests(rendered)
    assert [each.name for each in tmp_path.iterdir()] == ["repository"]


def test_a_failure_leaves_nothing_and_keeps_the_old(
    deployment: Deployment, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "repository"
    render(deployment, *sources, out)
    before = digests(out)

    def full(*_: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr("toolkit.repository.render.shutil.copyfile", full)
    with pytest.raises(OSError, match="disk is full"):
        render(deployment, *sources, out)
    assert digests(out) == before
    assert [each.name for each in tmp_path.iterdir()] == ["repository"]


def test_impossible_fields_are_refused_by_name(
    deployment: Deployment, sources: Sources, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        render(changed(deployment, kv_cache={"host_offload": "1GiB"}), *sources, tmp_path / "r")
    assert "host_offload" in str(caught.value.where)


def test_a_checkpoint_without_tokenizer_is_refused(
    deployment: Deployment, sources: Sources, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"no tokenizer\.json"):
        render(deployment, sources[0], tmp_path, tmp_path / "r")


def test_an_undefined_name_in_a_template_is_an_error(
    deployment: Deployment, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jinja2 import UndefinedError

    template = tmp_path / "config.pbtxt.j2"
    template.write_text("name: {{ deploymnt.name }}")
    place = Path(layout.MODEL_TEMPLATE) / template.name
    monkeypatch.setattr("toolkit.repository.render.template_files", lambda _: [(place, template)])
    with pytest.raises(UndefinedError, match="deploymnt"):
        render(deployment, *sources, tmp_path / "r")


def test_caches_beside_templates_stay_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tmp_path / "shared" / layout.MODEL_TEMPLATE / "1"
    names = ("__pycache__/model.pyc", ".mypy_cache/x.json", "package/__init__.py", "model.py")
    for name in names:
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        (version / name).touch()
    monkeypatch.setattr(layout, "template_root", lambda: tmp_path)
    places = [place.name for place, _ in layout.template_files("openvino")]
    assert places == ["model.py", "__init__.py"]


def test_the_model_code_runs_without_this_package(rendered: Path) -> None:
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' in p or 'lib' in p];"
        f"sys.path.insert(0, {str(rendered / 'chat/1')!r});"
        "from llm_serving import request, stream, settings;"
        f"settings.load(__import__('pathlib').Path({str(rendered / 'chat/1/settings.json')!r}));"
        "assert not any(name.split('.')[0] == 'toolkit' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
