"""An HTTP server whose ``/metrics`` is whatever the test says at the moment."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"
GATEWAY = (RECORDED / "gateway.txt").read_text()
"""A gateway's metrics after 202 requests of a load test on the sample model."""
TRITON = (RECORDED / "triton.txt").read_text()
"""Those of the Triton behind it."""


class Exposition:
    """Answers with ``text()``; counts how often it was asked."""

    def __init__(
        self,
        text: Callable[[], str],
        *,
        port: int = 0,
        status: int = 200,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.asked = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self, text, status))
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Exposition:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _handler(
    owner: Exposition, text: Callable[[], str], status: int
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            owner.asked += 1
            body = text().encode()
            self.send_response(status if self.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
