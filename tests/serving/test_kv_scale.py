"""After an out-of-memory the next start has a smaller cache, in every runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolkit.repository.configs import read_configs
from toolkit.serving.kv_scale import scale_caches
from toolkit.serving.launch import mirror

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "nvidia"))

FRACTION, TOKENS = "kv_cache_free_gpu_mem_fraction", "max_tokens_in_paged_kv_cache"


def shares(repository: Path, model: str) -> tuple[float, int | None]:
    configs, _ = read_configs(repository)
    told = {name: each.string_value for name, each in configs[model].parameters.items()}
    return float(told[FRACTION]), int(told[TOKENS]) if TOKENS in told else None


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("llama-8b-fp8-h100-engine", ["tensorrt_llm"]),
        ("llama-8b-draft-1b-engine", ["tensorrt_llm", "tensorrt_llm_draft"]),
    ],
)
def test_engines_are_served_with_less(name: str, models: list[str], tmp_path: Path) -> None:
    import golden

    repository = golden.render_golden(name, tmp_path)
    before = {file: file.read_bytes() for file in repository.glob("*/config.pbtxt")}
    served = mirror(repository, tmp_path / "served")
    for scale in (0.8, 0.64):  # each time from what was built, not from the last attempt
        scale_caches(repository, served, scale)
        for model in models:
            fraction, tokens = shares(repository, model)
            less, fewer = shares(served, model)
            assert less == pytest.approx(fraction * scale)
            assert fewer == (None if tokens is None else int(tokens * scale))
    assert before == {file: file.read_bytes() for file in repository.glob("*/config.pbtxt")}
    scale_caches(repository, served, 1.0)
    assert (served / "tensorrt_llm/config.pbtxt").read_bytes() == before[
        repository / "tensorrt_llm/config.pbtxt"
    ]


def test_other_models_stay_as_they_are(tmp_path: Path) -> None:
    import golden

    repository = golden.render_golden("llama-8b-fp8-h100", tmp_path)
    served = mirror(repository, tmp_path / "served")
    scale_caches(repository, served, 0.5)
    for file in repository.glob("*/config.pbtxt"):
        assert (served / file.relative_to(repository)).read_bytes() == file.read_bytes()
