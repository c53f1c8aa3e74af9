"""A smaller KV cache for NVIDIA's C++ backend, which reads its share from config.pbtxt alone.

Our own models read the environment variable TOOLKIT_KV_CACHE_SCALE instead.
"""

from __future__ import annotations

import re
from pathlib import Path

_BACKEND = re.compile(r'^backend: "tensorrtllm"', re.MULTILINE)
_SHARE = re.compile(
    r'(key: "(kv_cache_free_gpu_mem_fraction|max_tokens_in_paged_kv_cache)"'
    r' value: \{ string_value: ")([^"]+)(")'
)


def scale_caches(repository: Path, served: Path, scale: float) -> None:
    """Write the caches of ``repository``'s engines, times ``scale``, into its copy ``served``."""
    for file in sorted(repository.glob("*/config.pbtxt")):
        text = file.read_text(encoding="utf-8")
        if _BACKEND.search(text):
            place = served / file.relative_to(repository)
            place.write_text(_SHARE.sub(lambda found: _scaled(found, scale), text), "utf-8")


def _scaled(found: re.Match[str], scale: float) -> str:
    before, name, value, after = found.groups()
    smaller = float(value) * scale
    text = f"{smaller:g}" if name.endswith("fraction") else str(int(smaller))
    return f"{before}{text}{after}"
