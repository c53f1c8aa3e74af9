"""Random deployments of which most work, for the property tests of both NVIDIA runtimes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SIZES = st.sampled_from([1, 2, 8, 64, 256])
SCALES = st.sampled_from([512, 4096, 32_768])


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A section with any of its fields."""
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def limits(draw: st.DrawFn) -> dict[str, int]:
    batch, length = draw(SIZES), draw(SCALES)
    prompt = draw(st.integers(1, length - 1))
    # Room for 5 drafts of each request and a block of a prompt; whole prompts are chunked.
    step = draw(st.integers(batch * 6 + 128, batch * 6 + 16_384))
    return {
        "max_batch_size": batch,
        "max_input_len": prompt,
        "max_seq_len": length,
        "max_num_tokens": min(step, batch * length),
    }


LORA = st.fixed_dictionaries(
    {"adapters": st.just({"sql": "./sql", "chat": "hf://a/b@main"})},
    optional={
        "max_rank": st.sampled_from([8, 64]),
        "target_modules": st.sampled_from([("attn_q",), ("attn_q", "mlp_gate")]),
    },
)
DRAFT_MODEL = st.fixed_dictionaries(
    {"method": st.just("draft_model"), "draft": st.just({"source": "./draft"})},
    optional={"max_draft_len": st.integers(1, 5)},
)
KV_CACHE = _some(
    reuse=st.booleans(),
    free_memory_fraction=st.sampled_from([0.5, 0.85]),
    size=st.sampled_from(["20GiB", "64GiB"]),
    tokens_per_block=st.sampled_from([32, 64]),
)
PARALLELISM = _some(tensor=st.sampled_from([1, 2, 4, 8]), pipeline=st.sampled_from([1, 2]))

PYTORCH = st.fixed_dictionaries(
    {"limits": limits()},
    optional={
        "parallelism": PARALLELISM,
        "kv_cache": KV_CACHE,
        "batching": _some(
            policy=st.sampled_from(["guaranteed_no_evict", "max_utilization", "static_batch"]),
            chunking=st.sampled_from(["first_come_first_served", "equal_progress"]),
            stream_interval=st.integers(1, 8),
            queue_delay=st.sampled_from(["1ms", "0.5s"]),
        ),
        "speculation": st.one_of(
            DRAFT_MODEL,
            st.fixed_dictionaries(
                {"method": st.just("ngram")},
                optional={"max_matching_ngram_size": SIZES.filter(lambda size: size <= 16)},
            ),
            st.fixed_dictionaries(
                {"method": st.just("eagle3"), "source": st.just("./head")},
                optional={"max_concurrency": st.integers(1, 32)},
            ),
        ),
        "guided_decoding": st.sampled_from(["xgrammar", "llguidance"]),
        "lora": LORA,
        "cuda_graphs": st.one_of(
            st.just({"enabled": False}),
            st.just({"batch_sizes": (1,)}),
            _some(padding=st.booleans()),
        ),
        "pytorch": _some(
            overlap_scheduler=st.just(False),
            attention_backend=st.sampled_from(["trtllm", "flashinfer"]),
            torch_compile=st.booleans(),
            autotuner=st.booleans(),
        ),
        "dtype": st.sampled_from(["bfloat16", "float16"]),
    },
)

TENSORRT = st.fixed_dictionaries(
    {"limits": limits()},
    optional={
        "parallelism": PARALLELISM,
        "kv_cache": KV_CACHE,
        "batching": _some(
            policy=st.sampled_from(["guaranteed_no_evict", "max_utilization"]),
        ),
        "speculation": st.one_of(
            DRAFT_MODEL,
            st.just({"method": "lookahead", "window_size": 1, "ngram_size": 2,
                     "verification_set_size": 1}),
        ),
        "guided_decoding": st.just("xgrammar"),
        "lora": LORA,
        "cuda_graphs": st.just({"enabled": True, "cache_size": 16}),
        "tensorrt": st.one_of(
            st.just({"multiple_profiles": True}),
            _some(
                opt_num_tokens=st.integers(1, 64),
                gemm_plugin=st.sampled_from(["auto", "disable"]),
                workers=st.integers(1, 4),
                gather_generation_logits=st.booleans(),
            ),
        ),
    },
)  # fmt: skip
FORMATS = st.sampled_from(
    [("none", "none"), ("fp8", "fp8"), ("fp8", "none"), ("int4_awq", "none"), ("auto", "auto")]
)
