"""The built wheel carries everything: installed alone, it renders a repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RENDER = """
import sys
from pathlib import Path
import toolkit
from toolkit.repository.render import render
from toolkit.spec.loading import load

print(Path(toolkit.__file__).parent)
deployment = load(Path(sys.argv[1]), environ={}).deployment
render(deployment, Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
"""

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and this environment's other packages, not with the source."""
    home = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    # Lines of a .pth file found there are not read again, so an editable install stays out.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments], cwd="/", env=environment, capture_output=True, text=True
    )


def test_wheel_holds_every_template_and_data_file_of_the_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tree = subprocess.run(
        [*listing, "toolkit", "model_repo_templates", "benchmarks/scenarios"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    places = {"model_repo_templates/": "toolkit/", "benchmarks/": "toolkit/bench/"}
    for name in tree:
        if (ROOT / name).is_file():
            prefix = next((p for start, p in places.items() if name.startswith(start)), "")
            assert prefix + name.removeprefix("benchmarks/") in packed


def test_installed_wheel_renders_a_repository(python: Path, tmp_path: Path) -> None:
    checkpoint, engine = tmp_path / "checkpoint", tmp_path / "engine"
    checkpoint.mkdir()
    engine.mkdir()
    (checkpoint / "config.json").write_text(json.dumps(CONFIG))
    (checkpoint / "tokenizer.json").write_text("{}")
    (engine / "engine.json").write_text('{"runtime": "openvino"}')
    out = tmp_path / "repository"
    example = ROOT / "examples" / "smollm2.yaml"
    arguments = map(str, (example, engine, checkpoint, out))
    done = run(python, "-c", RENDER, *arguments)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(python.parents[1])
    assert 'backend: "python"' in (out / "smollm2" / "config.pbtxt").read_text()
    assert (out / "smollm2" / "1" / "model.py").is_file()


def test_installed_console_script_runs(python: Path) -> None:
    done = run(python.with_name("toolkit"), "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("toolkit ")
    assert run(python, "-m", "toolkit", "schema").returncode == 0
