"""How the memory for KV caches is divided between a target and its draft model."""

from __future__ import annotations

import json
from pathlib import Path

from toolkit.checkpoint.architecture import Architecture


def draft_share(engine: Path, arch: Architecture) -> float | None:
    """The draft's part of the KV cache of one token of both, in hundredths; None if not known.

    Each engine takes its share of the memory that is free when it loads, so the two shares must not
    sum up to more than the deployment allows. Both keep every token, in proportion to layers x KV
    heads x head size.
    """
    file = engine / "draft" / "config.json"
    if not file.is_file():
        return None
    model = json.loads(file.read_text(encoding="utf-8"))["pretrained_config"]
    heads = model.get("num_key_value_heads") or model["num_attention_heads"]
    size = model.get("head_size") or model["hidden_size"] // model["num_attention_heads"]
    draft: int = model["num_hidden_layers"] * heads * size
    target = arch.num_layers * arch.num_kv_heads * arch.head_dim
    return round(draft / (draft + target), 2)
