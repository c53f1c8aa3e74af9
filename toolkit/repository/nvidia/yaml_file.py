"""Check model.yaml: arguments of the release's LLM API, and files that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.engine.pytorch import argument_problems
from toolkit.releases import Release
from toolkit.repository.configs import Configs
from toolkit.repository.findings import Finding
from toolkit.repository.layout import ALIAS, VERSION

FILE = "model.yaml"


def yaml_findings(
    repository: Path, configs: Configs, model: str, table: Release
) -> Iterator[Finding]:
    """Unknown and wrong arguments, a triton_config that contradicts config.pbtxt, lost paths."""
    import yaml

    version = repository / model / VERSION
    where = f"{model}/{VERSION}/{FILE}"
    try:
        content = yaml.safe_load((version / FILE).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        yield Finding(where, f"cannot be read: {error}")
        return
    if not isinstance(content, dict):
        yield Finding(where, "holds no arguments")
        return
    triton = content.pop("triton_config", {})
    for message in (*_triton(triton, table), *argument_problems(content, table)):
        yield Finding(where, message)
    if model in configs:
        decoupled = configs[model].model_transaction_policy.decoupled
        if triton.get("decoupled") != decoupled:
            yield Finding(where, "triton_config.decoupled is not that of config.pbtxt")
    for path in _paths(content):
        if not (version / path).exists():
            yield Finding(where, f"{path} is not there")


def _triton(given: Mapping[str, Any], table: Release) -> Iterator[str]:
    known = {each.name: each for each in table.triton_model(ALIAS, "pytorch").settings}
    for name, value in given.items():
        if name not in known:
            yield f"triton_config.{name} is unknown to {table.title}"
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        wrong = known[name].problem(text)
        if wrong:
            yield f"triton_config.{name} {wrong}"
    for name, setting in known.items():
        if setting.required and name not in given:
            yield f"triton_config.{name} is missing"


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _paths(each)
    elif isinstance(value, list):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, str) and value.startswith("./"):
        yield value
