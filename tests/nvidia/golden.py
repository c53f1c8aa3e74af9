"""Realistic deployments and what is rendered for them, kept under ``tests/golden``.

Run as a script to write the rendered files anew:
``PYTHONPATH=. python tests/nvidia/golden.py``. Every line of a difference wants to be read.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
MODELS = GOLDEN / "models"
SERVED_AT = PurePosixPath("/models")
RENDERED = ("config.pbtxt", "model.yaml", "settings.json")
FILES = "files.txt"
COMMANDS = "commands.txt"

sys.path[:0] = [str(HERE), str(HERE.parent / "repository"), str(HERE.parent / "engine")]

from built_engine import write_engine  # noqa: E402
from miniature import write_checkpoint  # noqa: E402

from toolkit.checkpoint.architecture import (  # noqa: E402
    architecture_of,
    read_architecture,
    read_json,
)
from toolkit.engine import tensorrt  # noqa: E402
from toolkit.engine.nvidia.target import Target, target_of  # noqa: E402
from toolkit.repository.render import render  # noqa: E402
from toolkit.spec.models import Deployment, DraftModel, Eagle3, Quantization  # noqa: E402


def names() -> list[str]:
    """All deployments."""
    return sorted(each.parent.name for each in GOLDEN.glob("*/deployment.yaml"))


def deployment(name: str) -> Deployment:
    """The deployment of that name, as its file has it."""
    from toolkit.spec.loading import load

    return load(GOLDEN / name / "deployment.yaml", environ={}).deployment


def render_golden(name: str, folder: Path) -> Path:
    """The repository of a golden deployment, below ``folder``."""
    return render_deployment(deployment(name), model_of(deployment(name)), folder)


def model_of(made: Deployment) -> Path:
    """The config.json that belongs to a deployment's model."""
    name = made.model.source.rpartition("/")[2].partition("@")[0].lower()
    return MODELS / f"{name.removesuffix('-v0.1')}.json"


def render_deployment(made: Deployment, config: Path, folder: Path) -> Path:
    """A repository with engines and a checkpoint in miniature."""
    checkpoint = write_checkpoint(folder / "checkpoint")
    shutil.copyfile(config, checkpoint / "config.json")
    (checkpoint / "generation_config.json").unlink()
    target = target_of(made)
    engine = folder / "engine"
    engine.mkdir()
    (engine / "engine.json").write_text(json.dumps({"runtime": target.runtime}))
    _put_adapters(made, engine, target)
    if target.runtime == "tensorrt":
        _put_engines(made, checkpoint, engine, target)
    elif isinstance(made.engine.speculation, DraftModel | Eagle3):
        shutil.copytree(checkpoint, engine / "draft")
    repository = folder / "repository"
    tokens = _kv_tokens(made, checkpoint)
    render(made, engine, checkpoint, repository, served_at=SERVED_AT, kv_tokens=tokens)
    return repository


def _kv_tokens(made: Deployment, checkpoint: Path) -> int | None:
    """As a build knows it: from the plan, where there are two models on a GPU."""
    from toolkit.pipeline.planning import make_plan

    draft = draft_of(made)
    if draft is None or made.engine.runtime != "tensorrt":
        return None
    small = architecture_of(read_json(draft), {}, where=str(draft))
    memory = make_plan(made, read_architecture(checkpoint), draft=small).memory
    return memory.kv_tokens if memory else None


def _put_adapters(made: Deployment, engine: Path, target: Target) -> None:
    adapters = made.engine.lora.adapters if made.engine.lora else {}
    for number, name in enumerate(adapters):
        place = engine / "adapters" / (str(number) if target.runtime == "tensorrt" else name)
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text("{}")
        if target.runtime == "tensorrt":
            # What TensorRT-LLM's examples/hf_lora_convert.py leaves.
            for part in ("weights", "config"):
                (place / f"model.lora_{part}.npy").write_bytes(b"npy")


def _put_engines(made: Deployment, checkpoint: Path, engine: Path, target: Target) -> None:
    arch = read_architecture(checkpoint)
    resolved = tensorrt.check(made.engine, made.quantization, arch, target.release, target.gpu)
    commands = tensorrt.build_commands(made, arch, target.release, resolved=resolved)
    ways = made.engine.parallelism
    for command in commands:
        if command.step in ("convert", "adapter"):
            continue
        drafting = command.step == "draft"
        formats = Quantization() if drafting else made.quantization
        config = write_engine(
            engine / command.step,
            command,
            version=target.release.version,
            tensor=ways.tensor,
            pipeline=ways.pipeline,
            layers=arch.num_layers,
            quant_algo=None if formats.weights == "none" else resolved.weights.quant_algo,
        )
        pretrained = config["pretrained_config"]
        pretrained |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_size": 128}
        pretrained["vocab_size"] = arch.vocab_size
        if drafting:
            pretrained |= {"num_hidden_layers": 16, "head_size": 64}
        (engine / command.step / "config.json").write_text(json.dumps(config))


def draft_of(made: Deployment) -> Path | None:
    """The config.json that belongs to a deployment's draft model."""
    chosen = made.engine.speculation
    if not isinstance(chosen, DraftModel):
        return None
    return MODELS / f"{str(chosen.draft.source).rpartition('/')[2].partition('@')[0].lower()}.json"


def told(name: str, command: list[str], folder: Path) -> dict[str, Any]:
    """What a command of the command line says of a golden deployment, as JSON."""
    from toolkit.cli.app import run

    made = deployment(name)
    words = [*command, "--json", "--workspace", str(folder / "workspace")]
    words += ["--model-config", str(model_of(made))]
    if (draft := draft_of(made)) is not None:
        words += ["--draft-config", str(draft)]
    words.insert(1, str(GOLDEN / name / "deployment.yaml"))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run(words)
    assert code == 0, f"{name}: {command} ended with {code}"
    result: dict[str, Any] = json.loads(out.getvalue())
    return result


def commands_text(name: str, folder: Path) -> str:
    """Every command of building and deploying, one option a line, nothing of this machine."""
    dry = told(name, ["deploy", "--dry-run"], folder)
    lines = [_lines("build", shlex.split(each)) for each in dry["build"]["commands"]]
    lines += [_lines(each["why"], each["command"]) for each in dry["steps"]]
    lines.append("\n".join(f"{key}={value}" for key, value in dry["environment"].items()))
    text = "\n\n".join(lines) + "\n"
    user = f"--user {os.getuid()}:{os.getgid()}"
    text = text.replace(str(folder), "/here").replace(user, "--user UID:GID")
    return text.replace(sys.executable, "python3")


def _lines(why: str, words: list[str]) -> str:
    text = f"# {why}\n{words[0]}"
    for word in words[1:]:
        begins = word.startswith("-") or word in (":", "mpirun") or "/bin/tritonserver" in word
        text += ("\n  " if begins else " ") + word
    return text


@contextlib.contextmanager
def bare_machine(folder: Path) -> Iterator[None]:
    """No container engine, no server, no model hub, and a cache of its own."""
    changed = {
        "PATH": str(folder / "empty"),
        "TOOLKIT_CACHE": str(folder / "cache"),
        "HF_HUB_CACHE": str(folder / "hub"),
        "TOKENIZERS_PARALLELISM": None,
        "TOOLKIT_CONTAINER_ENGINE": None,
    }
    before = {key: os.environ.get(key) for key in changed}
    try:
        _set(changed)
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for key, value in values.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


def rendered_texts(repository: Path) -> dict[str, str]:
    """What templates made, by place, and a list of all files but the code."""
    texts: dict[str, Any] = {}
    places = []
    for file in sorted(repository.rglob("*")):
        if file.is_file():
            place = str(file.relative_to(repository))
            if file.suffix != ".py":
                places.append(place)
            if file.name in RENDERED:
                texts[place] = file.read_text(encoding="utf-8")
    texts[FILES] = "\n".join(places) + "\n"
    return texts


def kept_texts(name: str) -> dict[str, str]:
    """What is kept for a golden deployment."""
    folder = GOLDEN / name / "repository"
    return {
        str(file.relative_to(folder)): file.read_text(encoding="utf-8")
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def regenerate() -> None:
    """Write everything anew."""
    for name in names():
        with tempfile.TemporaryDirectory() as folder:
            texts = rendered_texts(render_golden(name, Path(folder)))
            with bare_machine(Path(folder)):
                commands = commands_text(name, Path(folder))
            (GOLDEN / name / COMMANDS).write_text(commands, encoding="utf-8")
        out = GOLDEN / name / "repository"
        shutil.rmtree(out, ignore_errors=True)
        for place, text in texts.items():
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            (out / place).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    regenerate()
