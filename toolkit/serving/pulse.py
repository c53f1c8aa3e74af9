"""Whether a process still answers: asked on a thread of its own, so that nobody waits for it."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from urllib.parse import urlsplit

_LEAST_MISSED = 3
_ANSWERS_A_PATIENCE = 12.0
_QUESTIONS_A_PATIENCE = 6.0


class Pulse:
    """Asks for ``url`` again and again.

    Any answer counts, an error too: the question is whether the process is alive. It may be busy
    for long on a loaded machine, and a machine that slept has missed no answer; so silence means
    several questions in a row, over at least ``patience`` seconds.
    """

    def __init__(self, url: str, patience: float) -> None:
        self._url = url
        self._patience = patience
        self._ended = threading.Event()
        self._missed = 0
        self._since = time.monotonic()
        self.answers = 0
        self._thread = threading.Thread(target=self._ask_on, name="pulse", daemon=True)
        self._thread.start()

    @property
    def silent(self) -> bool:
        """Whether it has given no answer for too long."""
        return self._missed >= _LEAST_MISSED and time.monotonic() - self._since >= self._patience

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _ask_on(self) -> None:
        while not self._ended.wait(self._patience / _ANSWERS_A_PATIENCE):
            if _answers(self._url, self._patience / _QUESTIONS_A_PATIENCE):
                self.answers += 1
                self._missed, self._since = 0, time.monotonic()
            else:
                self._missed += 1


def _answers(url: str, timeout: float) -> bool:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    if parts.scheme == "https":
        # It is our own process on this machine: only whether it is alive is asked, nothing told.
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=trusting)
    try:
        connection.request("GET", parts.path or "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()
