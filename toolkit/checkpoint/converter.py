"""What, besides the file, decides the checkpoint that a GGUF file becomes: code and libraries."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MODULES = (
    "architecture",
    "gguf",
    "gguf_config",
    "gguf_metadata",
    "gguf_tokenizer",
    "rope",
    "safetensors_file",
    "shards",
)
"""Modules of this room whose code the result follows from."""

_LIBRARIES = ("gguf", "tokenizers")


@cache
def converter() -> dict[str, str]:
    """Inputs of a conversion: a digest of its code, and the versions of the libraries it uses.

    A changed converter makes its checkpoints anew, without a number that one could forget to raise.
    """
    digest = hashlib.sha256()
    for name in MODULES:
        content = (Path(__file__).parent / f"{name}.py").read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return {"code": digest.hexdigest(), **{name: _version(name) for name in _LIBRARIES}}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
