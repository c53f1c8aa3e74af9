"""Check what lies beside the configurations: code, settings, engine, tokenizer, no secret."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.repository.configs import Configs
from toolkit.repository.findings import Finding
from toolkit.repository.layout import ENGINE_FOLDER, SETTINGS_FILE, TOKENIZER_FOLDER, VERSION

DECODERS = frozenset(
    {"ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace", "Sequence"}
)
"""Tokenizer decoders whose tokens stand for fixed bytes, as the model's detokenizer needs."""

_RUNTIME_MODULES = frozenset({"numpy", "tokenizers", "openvino", "triton_python_backend_utils"})
_SECRETS = {
    "a Hugging Face token": re.compile(rb"\bhf_[A-Za-z0-9]{30,}"),
    "an NGC or NVIDIA API key": re.compile(rb"\bnvapi-[A-Za-z0-9_-]{40,}"),
    "an AWS access key": re.compile(rb"\bAKIA[0-9A-Z]{16}\b"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a GitHub token": re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36,}"),
}
_TEXT_SIZE = 2**20


def check_contents(repository: Path, configs: Configs) -> list[Finding]:
    """Everything about files."""
    findings = list(secrets_in(repository))
    for name, config in configs.items():
        if config.backend == "python":
            findings += _model(repository, repository / name)
    return findings


def _model(repository: Path, model: Path) -> Iterator[Finding]:
    needed = ["model.py", "adapter.py", "settings.json", "tokenizer/tokenizer.json"]
    needed += ["engine/engine.json"]
    missing = [each for each in needed if not (model / VERSION / each).is_file()]
    for each in missing:
        yield Finding(str((model / VERSION / each).relative_to(repository)), "is missing")
    yield from foreign_imports(repository, model / VERSION)
    if not missing:
        yield from _settings(repository, model)
        yield from _tokenizer(repository, model)


def foreign_imports(
    repository: Path, version: Path, more: frozenset[str] = frozenset()
) -> Iterator[Finding]:
    """The repository has to work where this package is not installed; ``more`` is there too."""
    own = {each.stem for each in version.iterdir()}
    allowed = own | _RUNTIME_MODULES | more | set(sys.stdlib_module_names)
    for file in sorted(version.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.append(node.module)
            for name in names:
                if name.split(".")[0] not in allowed:
                    where = f"{file.relative_to(repository)}:{getattr(node, 'lineno', 0)}"
                    yield Finding(where, f"imports {name}, which a server need not have")


def _settings(repository: Path, model: Path) -> Iterator[Finding]:
    where = str((model / SETTINGS_FILE).relative_to(repository))
    settings: dict[str, Any] = json.loads((model / SETTINGS_FILE).read_text(encoding="utf-8"))
    engine: dict[str, Any] = json.loads((model / ENGINE_FOLDER / "engine.json").read_text())
    wanted = settings["engine"]
    if settings["model_name"] != model.name:
        yield Finding(where, f"model_name is {settings['model_name']!r}, not {model.name!r}")
    for name, value in settings["limits"].items():
        if wanted.get(name) != value:
            yield Finding(where, f"limits.{name} is {value}, the engine's is {wanted.get(name)}")
    longest = engine["target"]["max_position"]
    if settings["limits"]["max_seq_len"] > longest:
        yield Finding(
            where,
            f"limits.max_seq_len is {settings['limits']['max_seq_len']}, "
            f"the compiled model reaches {longest}",
            hint="lower engine.limits.max_seq_len",
        )
    yield from _engine_files(repository, model, wanted, engine)


def _engine_files(
    repository: Path, model: Path, wanted: dict[str, Any], engine: dict[str, Any]
) -> Iterator[Finding]:
    folder = model / ENGINE_FOLDER
    where = str(folder.relative_to(repository))
    folders = [folder]
    if wanted.get("speculation") == "draft_model":
        if engine["draft"] is None:
            yield Finding(where, "speculation by draft model, but the engine has no draft")
            return
        folders.append(folder / "draft")
    for each in folders:
        for name in ("openvino_model.xml", "openvino_model.bin"):
            if engine["runtime"] == "openvino" and not (each / name).is_file():
                yield Finding(str((each / name).relative_to(repository)), "is missing")


def _tokenizer(repository: Path, model: Path) -> Iterator[Finding]:
    file = model / TOKENIZER_FOLDER / "tokenizer.json"
    where = str(file.relative_to(repository))
    tokenizer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    yield from tokenizer_findings(repository, file)
    ids = [each["id"] for each in tokenizer.get("added_tokens", ())]
    ids += tokenizer["model"]["vocab"].values()
    engine: dict[str, Any] = json.loads((model / ENGINE_FOLDER / "engine.json").read_text())
    if max(ids) >= engine["target"]["vocab_size"]:
        yield Finding(
            where,
            f"holds token id {max(ids)}, the model has {engine['target']['vocab_size']} tokens",
            hint="the tokenizer belongs to another model",
        )


def tokenizer_findings(repository: Path, file: Path) -> Iterator[Finding]:
    """A tokenizer whose tokens do not stand for fixed bytes, or that is missing."""
    where = str(file.relative_to(repository))
    if not file.is_file():
        yield Finding(where, "is missing")
        return
    tokenizer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for kind in _decoder_kinds(tokenizer.get("decoder")):
        if kind not in DECODERS:
            yield Finding(where, f"decoder {kind} is not supported")


def _decoder_kinds(decoder: dict[str, Any] | None) -> Iterator[str]:
    if decoder is None:
        yield "null"
    else:
        yield decoder["type"]
        for each in decoder.get("decoders", ()):
            yield from _decoder_kinds(each)


def secrets_in(repository: Path) -> Iterator[Finding]:
    """Credentials in files of up to a megabyte."""
    for file in sorted(repository.rglob("*")):
        if file.is_file() and file.stat().st_size <= _TEXT_SIZE:
            content = file.read_bytes()
            for what, pattern in _SECRETS.items():
                if pattern.search(content):
                    yield Finding(str(file.relative_to(repository)), f"holds {what}")
