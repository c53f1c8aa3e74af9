"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

_GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""Control groups, version 2 and 1: limit, use, and what of that the kernel gives back."""


def free_memory(root: Path = Path("/")) -> int:
    """Bytes to be had without swapping, within the limit of a container if there is one.

    Raises:
        OSError: the kernel does not say.
    """
    text = (root / "proc/meminfo").read_text(encoding="utf-8")
    available = _entry(text, "MemAvailable:")
    if available is None:
        raise OSError("/proc/meminfo has no MemAvailable line")
    free = available * 1024
    for folder, limit, used, reclaimable in _GROUPS:
        most, taken = _text(root / folder / limit), _text(root / folder / used)
        if most.isdigit() and taken.isdigit():
            cache = _entry(_text(root / folder / "memory.stat"), reclaimable) or 0
            free = min(free, int(most) - int(taken) + cache)
    return max(free, 0)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _entry(text: str, name: str) -> int | None:
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    return None
