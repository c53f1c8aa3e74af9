"""What guided decoding in NVIDIA's C++ backend has to know about the tokenizer.

The same content as ``examples/generate_xgrammar_tokenizer_info.py`` of TensorRT-LLM writes
(``_xgrammar_tokenizer_info`` in tensorrt_llm/llmapi/tokenizer.py), from tokenizer.json alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import Architecture

FILE = "xgrammar_tokenizer_info.json"


def tokenizer_info(tokenizer: Path, arch: Architecture) -> dict[str, Any]:
    """Tokens in the order of their ids, the tokenizer itself, and what ends an answer."""
    text = tokenizer.read_text(encoding="utf-8")
    content = json.loads(text)
    vocabulary: dict[str, int] = dict(content["model"]["vocab"])
    vocabulary |= {each["content"]: each["id"] for each in content.get("added_tokens", ())}
    return {
        "encoded_vocab": sorted(vocabulary, key=lambda token: vocabulary[token]),
        "tokenizer_str": text,
        "stop_token_ids": list(arch.eos_token_ids),
    }
