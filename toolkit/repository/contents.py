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
    for check in (_settings, _tokenizer) if not missing else ():
        try:
            yield from check(repository, model)
        except _DamagedError as error:
            yield error.finding


def foreign_imports(
    repository: Path, version: Path, more: frozenset[str] = frozenset()
) -> Iterator[Finding]:
    """The repository has to work where this package is not installed; ``more`` is there too."""
    own = {each.stem for each in version.iterdir()}
    allowed = own | _RUNTIME_MODULES | more | set(sys.stdlib_module_names)
    for file in sorted(version.rglob("*.py")):
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            yield Finding(f"{file.relative_to(repository)}:{line}", f"cannot be read: {error}")
            continue
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.append(node.module)
            for name in names:
                if name.split(".")[0] not in allowed:
                    where = f"{file.relative_to(repository)}:{getattr(node, 'lineno', 0)}"
                    yield Finding(where, f"imports {name}, which a server need not have")


class _DamagedError(Exception):
    """A file does not hold what every check of it needs."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(where, message)


class _Document:
    """A JSON file of the repository."""

    def __init__(self, repository: Path, file: Path) -> None:
        self.where = str(file.relative_to(repository))
        try:
            self._content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _DamagedError(self.where, f"is not JSON: {error}") from None

    def get(self, *keys: str) -> Any:
        """The value below ``keys``."""
        value = self._content
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise _DamagedError(self.where, f"{key!r} is missing")
            value = value[key]
        return value


def _settings(repository: Path, model: Path) -> Iterator[Finding]:
    settings = _Document(repository, model / SETTINGS_FILE)
    engine = _Document(repository, model / ENGINE_FOLDER / "engine.json")
    wanted, limits = settings.get("engine"), settings.get("limits")
    if settings.get("model_name") != model.name:
        named = settings.get("model_name")
        yield Finding(settings.where, f"model_name is {named!r}, not {model.name!r}")
    for name, value in limits.items():
        if wanted.get(name) != value:
            message = f"limits.{name} is {value}, the engine's is {wanted.get(name)}"
            yield Finding(settings.where, message)
    served, reached = settings.get("limits", "max_seq_len"), engine.get("target", "max_position")
    if served > reached:
        yield Finding(
            settings.where,
            f"limits.max_seq_len is {served}, the compiled model reaches {reached}",
            hint="lower engine.limits.max_seq_len",
        )
    yield from _engine_files(repository, model, wanted, engine)


def _engine_files(
    repository: Path, model: Path, wanted: dict[str, Any], engine: _Document
) -> Iterator[Finding]:
    folder = model / ENGINE_FOLDER
    where = str(folder.relative_to(repository))
    folders = [folder]
    if wanted.get("speculation") == "draft_model":
        if engine.get("draft") is None:
            yield Finding(where, "speculation by draft model, but the engine has no draft")
            return
        folders.append(folder / "draft")
    for each in folders:
        for name in ("openvino_model.xml", "openvino_model.bin"):
            if engine.get("runtime") == "openvino" and not (each / name).is_file():
                yield Finding(str((each / name).relative_to(repository)), "is missing")


def _tokenizer(repository: Path, model: Path) -> Iterator[Finding]:
    file = model / TOKENIZER_FOLDER / "tokenizer.json"
    tokenizer = _Document(repository, file)
    yield from tokenizer_findings(repository, file)
    vocabulary = tokenizer.get("model", "vocab")
    # Unigram models list their pieces in order, the others map them to numbers.
    ids = list(vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary)))
    ids += [each["id"] for each in tokenizer.get().get("added_tokens", ())]
    size = _Document(repository, model / ENGINE_FOLDER / "engine.json").get("target", "vocab_size")
    if max(ids) >= size:
        yield Finding(
            tokenizer.where,
            f"holds token id {max(ids)}, the model has {size} tokens",
            hint="the tokenizer belongs to another model",
        )


def tokenizer_findings(repository: Path, file: Path) -> Iterator[Finding]:
    """A tokenizer whose tokens do not stand for fixed bytes, or that is missing."""
    where = str(file.relative_to(repository))
    if not file.is_file():
        yield Finding(where, "is missing")
        return
    try:
        decoder = _Document(repository, file).get("decoder")
    except _DamagedError as error:
        yield error.finding
        return
    for kind in _decoder_kinds(decoder):
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
