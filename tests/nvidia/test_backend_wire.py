"""A request as NVIDIA's tensors and back; every tensor is the release table's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from llm_serving.engine_api import GenerationRequest, Guide, Sampling, TokenChunk, Usage
from triton_engine import wire
from triton_engine.generate import generate
from triton_engine.settings import TritonEngineSettings

from toolkit.releases import known_releases

ENGINES = [each for each in known_releases() if "tensorrt" in each.runtimes]
FULL = GenerationRequest(
    1,
    (1, 2, 3),
    Sampling(
        max_tokens=9, min_tokens=2, temperature=0.5, top_k=4, top_p=0.9, repetition_penalty=1.1,
        presence_penalty=0.1, frequency_penalty=0.2, seed=7, stop_token_ids=(0, 5),
        bad_words=((8,), (9, 9)), log_probs=True,
    ),
    guide=Guide("regex", "a+"),
)  # fmt: skip
TYPES = {"i": "TYPE_INT32", "f": "TYPE_FP32", "b": "TYPE_BOOL", "u": "TYPE_UINT64",
         "O": "TYPE_STRING"}  # fmt: skip


@pytest.mark.parametrize("release", ENGINES, ids=lambda each: each.version)
def test_every_tensor_is_in_the_table(release: Any) -> None:
    model = release.triton_model("tensorrt_llm")
    arrays = wire.inputs(FULL, (1, 2, 3), 9, streaming=True, task_id=3)
    arrays |= {"return_perf_metrics": np.array([[True]]), "draft_input_ids": np.array([[1]], "i4")}
    for name, array in (*arrays.items(), *wire.stop_inputs().items()):
        tensor = model.tensor(name)
        assert TYPES[array.dtype.kind] == tensor.dtype, name
        # A batch of one before the table's dimensions.
        assert array.shape[0] == 1
        assert len(array.shape) == len(tensor.dims) + 1, name
        assert all(d in (-1, n) for d, n in zip(tensor.dims, array.shape[1:], strict=True)), name
    for name in (*wire.OUTPUTS, *wire.LOG_PROBS, *wire.PERF_METRICS):
        model.tensor(name, "output")


def test_words_are_flat_with_their_ends() -> None:
    assert wire.word_list([(8,), (9, 10)]).tolist() == [[[8, 9, 10], [1, 3, -1]]]


def test_greedy_with_log_probs_names_a_sampling_parameter() -> None:
    """Without one the backend computes none (docs/model_config.md of the Triton backend)."""
    assert wire.choice(Sampling(1)) == {}
    found = wire.choice(Sampling(1, log_probs=True))
    assert {name: array.item() for name, array in found.items()} == {"runtime_top_k": 1}


def test_answers() -> None:
    answer = wire.read({
        "output_ids": np.array([[[4, 5, -1]]], np.int32),
        "sequence_length": np.array([[2]], np.int32),
        "output_log_probs": np.array([[[-0.1, -0.2, -0.3]]], np.float32),
    })  # fmt: skip
    assert answer.tokens == [4, 5]
    assert answer.log_probs == pytest.approx([-0.2, -0.3])
    empty = np.zeros((1, 1, 0), np.int32)
    assert wire.read({"output_ids": empty, "sequence_length": np.array([[0]])}).tokens == []


class Backend:
    """Answers as a model would that counts up by one, wrong drafts refused."""

    def __init__(self, end_after: int | None = None, wrong: bool = False) -> None:
        self.asked: list[tuple[str, wire.Arrays]] = []
        self._end_after, self._wrong = end_after, wrong

    def __call__(self, model: str, arrays: wire.Arrays, outputs: tuple[str, ...]) -> Any:
        self.asked.append((model, arrays))
        tokens = arrays["input_ids"][0].tolist()
        count = int(arrays["request_output_len"].item())
        following = list(range(tokens[-1] + 1, tokens[-1] + 1 + count))
        if self._end_after is not None:
            following = [token for token in following if token <= self._end_after]
        if model == "draft" and self._wrong:
            following = [token + 50 if n == 1 else token for n, token in enumerate(following)]
        drafts = arrays.get("draft_input_ids")
        if drafts is not None:
            same = 0
            for a, b in zip(following, drafts[0].tolist(), strict=False):
                if a != b:
                    break
                same += 1
            following = following[: same + 1]
        answer = wire.Answer(following)
        return type("Call", (), {"answers": lambda _: iter([answer])})()


def run(backend: Backend, max_tokens: int, drafts: int | None = None) -> tuple[list[int], str]:
    settings = TritonEngineSettings("tensorrt", "1.2.1", 4, 4, draft="draft", max_draft_len=3)
    sampling = Sampling(max_tokens, stop_token_ids=(999,), seed=1, min_tokens=5)
    request = GenerationRequest(1, (10,), sampling, draft_tokens=drafts)
    chunks: list[TokenChunk] = list(generate(request, settings, backend, Usage()))
    return [token for chunk in chunks for token in chunk.tokens], str(chunks[-1].finish)


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("length", [1, 2, 4, 5, 13])
def test_drafts_do_not_change_what_comes(wrong: bool, length: int) -> None:
    backend = Backend(wrong=wrong)
    assert run(backend, length) == (list(range(11, 11 + length)), "length")
    rounds = sum(model == "tensorrt_llm" for model, _ in backend.asked)
    assert rounds <= length
    if not wrong and length > 4:
        assert rounds == -(-length // 4)


@pytest.mark.parametrize("end", [10, 11, 13, 14, 15, 17])
def test_an_end_token_ends_it_wherever_it_falls(end: int) -> None:
    """The backend leaves end tokens out: a round that is short of one has met it."""
    for wrong in (False, True):
        assert run(Backend(end_after=end, wrong=wrong), 40) == (list(range(11, end + 1)), "stop")
    assert run(Backend(end_after=end), 40, drafts=0) == (list(range(11, end + 1)), "stop")


def test_rounds_move_seeds_and_least_lengths_on() -> None:
    backend = Backend()
    run(backend, 9)
    asked = [arrays for model, arrays in backend.asked if model == "tensorrt_llm"]
    assert [int(each["min_tokens"].item()) for each in asked if "min_tokens" in each] == [5, 1]
    assert all("draft_input_ids" not in arrays for m, arrays in backend.asked if m == "draft")
