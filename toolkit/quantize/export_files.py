"""What belongs beside the exported weights: the tokenizer, and a config no reader gets wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import read_json

_BESIDE = ("tokenizer*", "vocab*", "merges*", "special_tokens_map.json", "added_tokens.json",
           "chat_template*", "*.jinja", "*.tiktoken", "*.model", "generation_config.json",
           "LICENSE*", "NOTICE*")  # fmt: skip


def copy_beside(source: Path, target: Path) -> None:
    """Copy tokenizer, chat template, generation settings and licence; replaces what is there."""
    for pattern in _BESIDE:
        for file in source.glob(pattern):
            if file.is_file():
                shutil.copyfile(file, target / file.name)


def complete_config(source: Path, target: Path) -> None:
    """Give config.json both spellings of what transformers 5 renamed.

    transformers 5 writes ``rope_parameters`` and ``dtype``. Runtimes built on transformers 4
    (TensorRT-LLM to 1.2) look for ``rope_theta``, ``rope_scaling`` and ``torch_dtype`` at the top
    level, and take a rope base of 10000 when they find none.
    """
    original = read_json(source / "config.json")
    path = target / "config.json"
    config = read_json(path)
    rope = dict(_rope(original) or _rope(config))
    theta = rope.pop("rope_theta", original.get("rope_theta"))
    if theta is not None:
        config["rope_theta"] = theta
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        config["rope_scaling"] = rope
    dtype = config.get("dtype") or config.get("torch_dtype")
    config |= {"dtype": dtype, "torch_dtype": dtype}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    section = config.get("rope_parameters") or config.get("rope_scaling")
    return section if isinstance(section, Mapping) else {}
