"""A local HTTP server that speaks the endpoints of the hub which huggingface-hub calls.

Only the server is a double: the client is the real library over real sockets. It can drop a
connection in the middle of a file, serve a damaged file, and refuse access.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

LARGE = 10_000
"""Bytes from which a file counts as stored by LFS, with a SHA-256."""


@dataclass
class Repository:
    """The files of a repository at one commit; branch and tag names point to it."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    refs: tuple[str, ...] = ("main",)
    gated: bool = False


@dataclass
class HubDouble:
    repositories: dict[str, Repository] = field(default_factory=dict)
    drop_once_after: dict[str, int] = field(default_factory=dict)
    """Close the connection after this many bytes of the file, once."""
    damage: Counter[str] = field(default_factory=Counter)
    """Serve the file with a flipped bit, this many times."""
    fail_with: int | None = None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range header of each request."""

    def add(self, name: str, directory: Path, **options: Any) -> Repository:
        files = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        self.repositories[name] = Repository(files, **options)
        return self.repositories[name]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def downloads(self, name: str) -> list[str | None]:
        """Range headers of the requests for the contents of a file."""
        return [
            header
            for method, path, header in self.requests
            if method == "GET" and path.endswith(f"/{name}")
        ]

    def __enter__(self) -> HubDouble:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag(content: bytes) -> str:
    return sha256(content) if len(content) >= LARGE else git_blob(content)


def _handler(hub: HubDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None: ...

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = self.path.split("?")[0]
            hub.requests.append((self.command, path, self.headers.get("Range")))
            if hub.fail_with:
                self._error(hub.fail_with, "")
            elif match := re.match(r"^/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)$", path):
                self._api(*match.groups())
            elif match := re.match(r"^/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path):
                self._file(*match.groups())
            else:
                self._error(404, "")

        def _repository(self, name: str, revision: str) -> Repository | None:
            repository = hub.repositories.get(name)
            if repository is None:
                self._error(404, "RepoNotFound")
            elif repository.gated:
                self._error(403, "GatedRepo")
            elif revision not in (*repository.refs, repository.commit):
                self._error(404, "RevisionNotFound")
            else:
                return repository
            return None

        def _api(self, name: str, kind: str, revision: str) -> None:
            repository = self._repository(name, revision)
            if repository is None:
                return
            if kind == "tree":
                self._json([_tree_entry(*item) for item in repository.files.items()])
                return
            siblings = [_sibling(*item) for item in repository.files.items()]
            self._json({"id": name, "sha": repository.commit, "siblings": siblings})

        def _file(self, name: str, revision: str, file: str) -> None:
            repository = self._repository(name, revision)
            if repository is None:
                return
            content = repository.files.get(file)
            if content is None:
                self._error(404, "EntryNotFound")
                return
            headers = {"ETag": f'"{etag(content)}"', "X-Repo-Commit": repository.commit}
            self._content(file, content, headers)

        def _content(self, file: str, content: bytes, headers: dict[str, str]) -> None:
            begin = 0
            if match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                begin = int(match[1])
                headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self.send_response(206 if begin else 200)
            headers["Content-Length"] = str(len(content) - begin)
            self._headers(headers)
            if self.command == "HEAD":
                return
            if hub.damage[file] > 0:
                hub.damage[file] -= 1
                middle = len(content) // 2
                content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            limit = hub.drop_once_after.pop(file, None)
            self.wfile.write(content[begin:limit])
            if limit is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

        def _json(self, value: Any) -> None:
            raw = json.dumps(value).encode()
            self.send_response(200)
            self._headers({"Content-Type": "application/json", "Content-Length": str(len(raw))})
            self.wfile.write(raw)

        def _error(self, status: int, code: str) -> None:
            self.send_response(status)
            headers = {"Content-Length": "0"}
            if code:
                headers["X-Error-Code"] = code
            self._headers(headers)

        def _headers(self, headers: dict[str, str]) -> None:
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_blob(content)}
    if len(content) >= LARGE:
        entry["lfs"] = {"size": len(content), "sha256": sha256(content), "pointerSize": 134}
    return entry


def _tree_entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file", "path": name, "size": len(content), "oid": git_blob(content)
    }  # fmt: skip
    if len(content) >= LARGE:
        entry["lfs"] = {"size": len(content), "oid": sha256(content), "pointerSize": 134}
    return entry
