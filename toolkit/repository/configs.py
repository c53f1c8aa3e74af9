"""Read a repository's config.pbtxt files into Triton's own ModelConfig message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.repository.findings import Finding

Configs = dict[str, Any]
"""Model name to ``inference.ModelConfig``."""


def read_configs(repository: Path) -> tuple[Configs, list[Finding]]:
    """Parse ``<model>/config.pbtxt`` of every folder, strictly: unknown fields are findings."""
    configs: Configs = {}
    findings: list[Finding] = []
    for folder in sorted(each for each in repository.iterdir() if each.is_dir()):
        file = folder / "config.pbtxt"
        if not file.is_file():
            findings.append(Finding(folder.name, "the model has no config.pbtxt"))
            continue
        config, problem = _parse(file, repository)
        if problem:
            findings.append(problem)
        else:
            configs[folder.name] = config
            findings += _identity(folder, config)
    if not configs and not findings:
        findings.append(Finding(".", "the repository holds no model"))
    return configs, findings


def _parse(file: Path, repository: Path) -> tuple[Any, Finding | None]:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        text = file.read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig()), None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        return None, Finding(str(file.relative_to(repository)), f"cannot be read: {error}")


def _identity(folder: Path, config: Any) -> list[Finding]:
    findings = []
    where = f"{folder.name}/config.pbtxt"
    if config.name and config.name != folder.name:
        findings.append(Finding(where, f"is named {config.name!r}, its folder {folder.name!r}"))
    if not any(each.name.isdigit() for each in folder.iterdir() if each.is_dir()):
        findings.append(Finding(folder.name, "the model has no version folder"))
    return findings
