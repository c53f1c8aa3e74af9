"""Gateways of one deployment as processes of their own, differing in one setting."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from toolkit.serving import probe
from toolkit.serving.ports import choose_one


@contextmanager
def gateway(deployment: Path, settings: Sequence[str], words: Sequence[str] = ()) -> Iterator[int]:
    """Its port, while ``toolkit gateway`` runs with the overrides ``settings``."""
    port = choose_one("127.0.0.1", 0, "gateway.port")
    overrides = [word for each in settings for word in ("--set", each)]
    command = [sys.executable, "-m", "toolkit", "gateway", str(deployment), *words, *overrides]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while probe.get(f"http://127.0.0.1:{port}/ready", 1.0)[0] != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the gateway did not become ready")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(60)
