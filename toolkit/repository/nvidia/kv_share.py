"""How the memory for KV caches is divided between a target and its draft model.

Both keep every token: in proportion to layers x KV heads x head size x bytes of an element. A draft
engine's cache has 16 bit whatever the target's has.
"""

from __future__ import annotations

import json
from pathlib import Path

from toolkit.checkpoint.architecture import Architecture
from toolkit.quantize.formats import KV_FORMATS
from toolkit.spec.models import KvFormat

_PLAIN = 16


def draft_share(draft: Architecture, target: Architecture, kv_cache: KvFormat) -> float:
    """The draft's part of the KV cache of one token of both, in hundredths.

    ``kv_cache`` is the format of the target's, not ``auto``.
    """
    return _share(draft.num_layers * draft.num_kv_heads * draft.head_dim, target, kv_cache)


def built_draft_share(engine: Path, target: Architecture, kv_cache: KvFormat) -> float | None:
    """The same from the draft's own engine below the folder ``engine``; None without one."""
    file = engine / "draft" / "config.json"
    if not file.is_file():
        return None
    model = json.loads(file.read_text(encoding="utf-8")).get("pretrained_config")
    if model is None:
        return None  # a checkpoint, of the LLM API
    heads = model.get("num_key_value_heads") or model["num_attention_heads"]
    size = model.get("head_size") or model["hidden_size"] // model["num_attention_heads"]
    return _share(model["num_hidden_layers"] * heads * size, target, kv_cache)


def _share(draft: int, target: Architecture, kv_cache: KvFormat) -> float:
    info = KV_FORMATS[kv_cache]
    bits = _PLAIN if info.name == "none" else info.bits
    whole = draft * _PLAIN + target.num_layers * target.num_kv_heads * target.head_dim * bits
    return round(draft * _PLAIN / whole, 2)
