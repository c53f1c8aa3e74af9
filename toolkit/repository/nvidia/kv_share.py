"""How the memory for KV caches is divided between a target and its draft model.

Each engine takes its share of the memory that is free when it loads, so the two shares must not sum
up to more than the deployment allows. Both keep every token, in proportion to layers x KV heads x
head size.
"""

from __future__ import annotations

import json
from pathlib import Path

from toolkit.checkpoint.architecture import Architecture


def draft_share(draft: Architecture, target: Architecture) -> float:
    """The draft's part of the KV cache of one token of both, in hundredths."""
    return _share(draft.num_layers * draft.num_kv_heads * draft.head_dim, target)


def built_draft_share(engine: Path, target: Architecture) -> float | None:
    """The same from the draft's own engine below the folder ``engine``; None without one."""
    file = engine / "draft" / "config.json"
    if not file.is_file():
        return None
    model = json.loads(file.read_text(encoding="utf-8")).get("pretrained_config")
    if model is None:
        return None  # a checkpoint, of the LLM API
    heads = model.get("num_key_value_heads") or model["num_attention_heads"]
    size = model.get("head_size") or model["hidden_size"] // model["num_attention_heads"]
    return _share(model["num_hidden_layers"] * heads * size, target)


def _share(draft: int, target: Architecture) -> float:
    whole = draft + target.num_layers * target.num_kv_heads * target.head_dim
    return round(draft / whole, 2)
