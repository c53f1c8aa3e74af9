"""Progress of a download made by somebody else's code: watch its directory grow."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.progress import Progress
from toolkit.spec.units import format_size

_INTERVAL = 0.2


@contextmanager
def watch_growth(
    what: str, directory: Path, total: int | None, progress: Progress
) -> Iterator[None]:
    """Report the bytes that appear below ``directory`` as progress of ``total`` bytes.

    pip and huggingface-hub draw bars of their own in ways that change between releases; the
    size of what they have written is the same to all of them.
    """
    before = _size(directory)
    stop = threading.Event()
    seen = 0

    def look() -> None:
        nonlocal seen
        grown = max(0, _size(directory) - before)
        if total is not None:
            grown = min(grown, total)
        if grown > seen:
            progress.advance(grown - seen)
            seen = grown

    def watch() -> None:
        while not stop.wait(_INTERVAL):
            look()

    progress.start(what, total, "B")
    watcher = threading.Thread(target=watch, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    except BaseException:
        stop.set()
        watcher.join()
        progress.finish("stopped")
        raise
    stop.set()
    watcher.join()
    look()
    progress.finish(format_size(seen if total is None else total))


def _size(directory: Path) -> int:
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118
            except OSError:
                continue  # renamed or removed meanwhile
    return size
