"""Text to token ids: the first step of NVIDIA's ensemble, with the tokenizers library alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from llm_serving.tensors import FieldError, decode  # noqa: E402
from llm_serving.tokenizer import TextTokenizer  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

_NO_END = -1


class TritonPythonModel:
    """One request may hold several prompts, one a row."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._tokenizer = TextTokenizer(HERE / parameters["tokenizer_dir"]["string_value"])
        self._special = parameters["add_special_tokens"]["string_value"] == "true"

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request, a wrong field with an error that names it."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            tensors = self._tensors(request)
        except FieldError as error:
            refused = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refused)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in tensors.items()]
        )

    def _tensors(self, request: Any) -> dict[str, NDArray[Any]]:
        prompts = [self._prompt(each) for each in _given(request, "QUERY").reshape(-1)]
        rows = len(prompts)
        ends = self._tokenizer.end_tokens
        end = _scalars(request, "END_ID", rows, ends[0] if ends else _NO_END)
        longest = max(map(len, prompts))
        padded = np.zeros((rows, longest), np.int32)
        for row, prompt in enumerate(prompts):
            padded[row, : len(prompt)] = prompt
        stop_words = self._words(request, "STOP_WORDS_DICT", rows)
        if _read(request, "END_ID") is None:
            # One end token goes its own way; a model's further ones are words that stop.
            stop_words = [[*words, *((token,) for token in ends[1:])] for words in stop_words]
        return {
            "INPUT_ID": padded,
            "REQUEST_INPUT_LEN": np.array([[len(each)] for each in prompts], np.int32),
            "REQUEST_OUTPUT_LEN": _scalars(request, "REQUEST_OUTPUT_LEN", rows, 0),
            "BAD_WORDS_IDS": _word_lists(self._words(request, "BAD_WORDS_DICT", rows)),
            "STOP_WORDS_IDS": _word_lists(stop_words),
            "OUT_END_ID": end,
            "OUT_PAD_ID": _scalars(request, "PAD_ID", rows, int(end.reshape(-1)[0])),
        }

    def _prompt(self, raw: bytes) -> tuple[int, ...]:
        tokens = self._tokenizer.encode(decode("text_input", raw), special=self._special)
        if not tokens:
            raise FieldError("text_input", "holds no tokens")
        return tokens

    def _words(self, request: Any, name: str, rows: int) -> list[list[tuple[int, ...]]]:
        array = _read(request, name)
        if array is None:
            return [[] for _ in range(rows)]
        field = name.removesuffix("_DICT").lower()
        found = []
        for row in array.reshape(rows, -1):
            words = [decode(field, each) for each in row if each]
            found.append(list(self._tokenizer.word_tokens(words)))
        return found


def _read(request: Any, name: str) -> NDArray[Any] | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _given(request: Any, name: str) -> NDArray[Any]:
    array = _read(request, name)
    if array is None or array.size == 0:
        raise FieldError("text_input", "is missing")
    return array


def _scalars(request: Any, name: str, rows: int, default: int) -> NDArray[Any]:
    array = _read(request, name)
    if array is None:
        return np.full((rows, 1), default, np.int32)
    if array.size != rows:
        raise FieldError(name.lower(), f"must hold one value a prompt, got {list(array.shape)}")
    return array.reshape(rows, 1).astype(np.int32)


def _word_lists(rows: list[list[tuple[int, ...]]]) -> NDArray[Any]:
    """[rows, 2, n]: each row's tokens one after another, and where each word ends, then -1."""
    longest = max(1, *(sum(map(len, words)) for words in rows))
    array = np.zeros((len(rows), 2, longest), np.int32)
    array[:, 1, :] = -1
    for row, words in enumerate(rows):
        flat = [token for word in words for token in word]
        array[row, 0, : len(flat)] = flat
        array[row, 1, : len(words)] = np.cumsum([len(word) for word in words])
    return array
