"""Ctrl-C while a fresh server is checked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolkit.cli import deploy_command
from toolkit.progress import Silent


def test_server_left_by_an_interrupted_check_is_told_with_how_to_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(deploy_command, "_validate", interrupted)
    log = tmp_path / "run/chat/server.log"
    server = cast("Any", SimpleNamespace(name="chat", endpoints=None, log=log))
    with pytest.raises(KeyboardInterrupt):
        deploy_command._prove(cast("Any", None), cast("Any", None), server, Silent())
    assert f"toolkit stop chat --workspace {tmp_path}" in capsys.readouterr().err
