"""What realistic deployments render to, and that all of it passes the static check."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest

from toolkit.repository.check import check_static


@pytest.mark.parametrize("name", golden.names())
def test_golden(name: str, tmp_path: Path) -> None:
    repository = golden.render_golden(name, tmp_path)
    texts, kept = golden.rendered_texts(repository), golden.kept_texts(name)
    assert sorted(texts) == sorted(kept)
    for place, text in texts.items():
        assert text == kept[place], f"{name}/{place}: PYTHONPATH=. python tests/nvidia/golden.py"
    assert check_static(repository) == []
