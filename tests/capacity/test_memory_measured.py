"""The estimate against the batches that TensorRT-LLM admitted on real GPUs.

Measured by NVIDIA's ai-dynamo/aiconfigurator and published in
tests/integration/test_trtllm_kv_cache_capacity.py at 095f58a51c4c: pytorch runtime, KV cache in
16 bit, max_seq_len = prompt + answer + 1000, max_num_tokens = 2 x prompt.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_shapes import LLAMA_8B, QWEN3_32B

from toolkit.capacity import fit
from toolkit.checkpoint.architecture import Architecture
from toolkit.quantize.check import check
from toolkit.spec.gpus import Gpu, find_gpu
from toolkit.spec.models import Engine, KvCache, Limits, Parallelism, Quantization

H100 = find_gpu("H100")
GB300 = replace(find_gpu("GB200"), name="GB300", memory=284_208 * 2**20)

QWEN3_32B_FP8 = (QWEN3_32B, "fp8")
LLAMA_8B_16 = (LLAMA_8B, "none")

# (model, GPU, tensor, prompt, answer, fraction of free memory, requests that were admitted)
MEASURED = [
    (QWEN3_32B_FP8, H100, 1, 2048, 2048, 0.8, 27),
    (QWEN3_32B_FP8, H100, 2, 2048, 2048, 0.8, 75),
    (QWEN3_32B_FP8, H100, 4, 2048, 2048, 0.8, 169),
    (QWEN3_32B_FP8, H100, 1, 2048, 4096, 0.8, 19),
    (QWEN3_32B_FP8, H100, 2, 2048, 4096, 0.8, 53),
    (QWEN3_32B_FP8, H100, 4, 2048, 4096, 0.8, 121),
    (QWEN3_32B_FP8, H100, 1, 4096, 2048, 0.8, 19),
    (QWEN3_32B_FP8, H100, 2, 4096, 2048, 0.8, 53),
    (QWEN3_32B_FP8, H100, 4, 4096, 2048, 0.8, 120),
    (QWEN3_32B_FP8, H100, 1, 4096, 4096, 0.8, 14),
    (QWEN3_32B_FP8, H100, 2, 4096, 4096, 0.8, 41),
    (QWEN3_32B_FP8, H100, 4, 4096, 4096, 0.8, 93),
    (QWEN3_32B_FP8, GB300, 1, 2048, 2048, 0.8, 153),
    (QWEN3_32B_FP8, GB300, 1, 2048, 4096, 0.8, 109),
    (QWEN3_32B_FP8, GB300, 1, 4096, 2048, 0.8, 108),
    (QWEN3_32B_FP8, GB300, 1, 4096, 4096, 0.8, 84),
    (QWEN3_32B_FP8, GB300, 2, 2048, 2048, 0.8, 326),
    (QWEN3_32B_FP8, GB300, 2, 2048, 4096, 0.8, 233),
    (QWEN3_32B_FP8, GB300, 2, 4096, 2048, 0.8, 232),
    (QWEN3_32B_FP8, GB300, 2, 4096, 4096, 0.8, 181),
    (QWEN3_32B_FP8, GB300, 4, 2048, 2048, 0.8, 673),
    (QWEN3_32B_FP8, GB300, 4, 2048, 4096, 0.8, 480),
    (QWEN3_32B_FP8, GB300, 4, 4096, 2048, 0.8, 479),
    (QWEN3_32B_FP8, GB300, 4, 4096, 4096, 0.8, 373),
    (QWEN3_32B_FP8, GB300, 1, 2048, 2048, 0.9, 172),
    (QWEN3_32B_FP8, GB300, 1, 2048, 4096, 0.9, 123),
    (QWEN3_32B_FP8, GB300, 1, 4096, 2048, 0.9, 122),
    (QWEN3_32B_FP8, GB300, 1, 4096, 4096, 0.9, 95),
    (QWEN3_32B_FP8, GB300, 2, 2048, 2048, 0.9, 367),
    (QWEN3_32B_FP8, GB300, 2, 2048, 4096, 0.9, 262),
    (QWEN3_32B_FP8, GB300, 2, 4096, 2048, 0.9, 261),
    (QWEN3_32B_FP8, GB300, 2, 4096, 4096, 0.9, 203),
    (QWEN3_32B_FP8, GB300, 4, 2048, 2048, 0.9, 757),
    (QWEN3_32B_FP8, GB300, 4, 2048, 4096, 0.9, 541),
    (QWEN3_32B_FP8, GB300, 4, 4096, 2048, 0.9, 539),
    (QWEN3_32B_FP8, GB300, 4, 4096, 4096, 0.9, 419),
    (LLAMA_8B_16, H100, 1, 2048, 2048, 0.8, 78),
    (LLAMA_8B_16, H100, 2, 2048, 2048, 0.8, 173),
    (LLAMA_8B_16, H100, 4, 2048, 2048, 0.8, 363),
    (LLAMA_8B_16, H100, 1, 2048, 4096, 0.8, 56),
    (LLAMA_8B_16, H100, 2, 2048, 4096, 0.8, 124),
    (LLAMA_8B_16, H100, 4, 2048, 4096, 0.8, 259),
    (LLAMA_8B_16, H100, 1, 4096, 2048, 0.8, 55),
    (LLAMA_8B_16, H100, 2, 4096, 2048, 0.8, 123),
    (LLAMA_8B_16, H100, 4, 4096, 2048, 0.8, 258),
    (LLAMA_8B_16, H100, 1, 4096, 4096, 0.8, 43),
    (LLAMA_8B_16, H100, 2, 4096, 4096, 0.8, 96),
    (LLAMA_8B_16, H100, 4, 4096, 4096, 0.8, 201),
    (LLAMA_8B_16, GB300, 1, 2048, 2048, 0.8, 330),
    (LLAMA_8B_16, GB300, 1, 2048, 4096, 0.8, 236),
    (LLAMA_8B_16, GB300, 1, 4096, 2048, 0.8, 235),
    (LLAMA_8B_16, GB300, 1, 4096, 4096, 0.8, 183),
    (LLAMA_8B_16, GB300, 2, 2048, 2048, 0.8, 677),
    (LLAMA_8B_16, GB300, 2, 2048, 4096, 0.8, 484),
    (LLAMA_8B_16, GB300, 2, 4096, 2048, 0.8, 483),
    (LLAMA_8B_16, GB300, 2, 4096, 4096, 0.8, 376),
    (LLAMA_8B_16, GB300, 4, 2048, 2048, 0.8, 1371),
    (LLAMA_8B_16, GB300, 4, 2048, 4096, 0.8, 979),
    (LLAMA_8B_16, GB300, 4, 4096, 2048, 0.8, 978),
    (LLAMA_8B_16, GB300, 4, 4096, 4096, 0.8, 761),
    (LLAMA_8B_16, GB300, 1, 2048, 2048, 0.9, 372),
    (LLAMA_8B_16, GB300, 1, 2048, 4096, 0.9, 265),
    (LLAMA_8B_16, GB300, 1, 4096, 2048, 0.9, 265),
    (LLAMA_8B_16, GB300, 1, 4096, 4096, 0.9, 206),
    (LLAMA_8B_16, GB300, 2, 2048, 2048, 0.9, 762),
    (LLAMA_8B_16, GB300, 2, 2048, 4096, 0.9, 544),
    (LLAMA_8B_16, GB300, 2, 4096, 2048, 0.9, 544),
    (LLAMA_8B_16, GB300, 2, 4096, 4096, 0.9, 423),
    (LLAMA_8B_16, GB300, 4, 2048, 2048, 0.9, 1542),
    (LLAMA_8B_16, GB300, 4, 2048, 4096, 0.9, 1101),
    (LLAMA_8B_16, GB300, 4, 4096, 2048, 0.9, 1100),
    (LLAMA_8B_16, GB300, 4, 4096, 4096, 0.9, 856),
]


@pytest.mark.parametrize(
    ("model", "gpu", "tensor", "prompt", "answer", "fraction", "admitted"),
    MEASURED,
    ids=[f"{m[0].model_type}-{g.name}-tp{t}-{i}-{o}-{f}" for m, g, t, i, o, f, _ in MEASURED],
)
def test_admitted_requests_are_predicted(
    model: tuple[Architecture, str],
    gpu: Gpu,
    tensor: int,
    prompt: int,
    answer: int,
    fraction: float,
    admitted: int,
) -> None:
    arch, weights = model
    engine = Engine(
        limits=Limits(
            max_batch_size=64,
            max_input_len=prompt,
            max_seq_len=prompt + answer + 1000,
            max_num_tokens=2 * prompt,
        ),
        parallelism=Parallelism(tensor=tensor),
        kv_cache=KvCache(free_memory_fraction=fraction),
    )
    resolved = check(arch, Quantization(weights=weights))
    plan = fit(engine, resolved, arch, gpu, runtime="pytorch")
    assert plan.full_requests == pytest.approx(admitted, rel=0.03, abs=1)
