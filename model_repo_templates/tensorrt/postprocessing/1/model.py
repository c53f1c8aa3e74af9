"""Token ids to text: the last step of NVIDIA's ensemble, with the tokenizers library alone.

A streamed answer comes here response by response, each as a request of its own; all that ties them
together is the id that the client gave its request. So a character whose bytes are spread over two
responses can be put together only for requests with ids of their own.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from llm_serving.detokenizer import complete_bytes, token_text  # noqa: E402
from llm_serving.tokenizer import TextTokenizer  # noqa: E402

_REMEMBERED = 4096
"""Requests whose unfinished characters are kept."""


class TritonPythonModel:
    """Rows of a request are beams or prompts."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._tokenizer = TextTokenizer(HERE / parameters["tokenizer_dir"]["string_value"])
        self._skip = parameters["skip_special_tokens"]["string_value"] == "true"
        self._unfinished: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
        rows = tokens.reshape(lengths.size, -1)
        texts = [
            self._text([int(each) for each in row[:count]], request.request_id(), number)
            for number, (row, count) in enumerate(zip(rows, lengths.reshape(-1), strict=True))
        ]
        # One dimension, as NVIDIA's model sends it and its clients read it.
        output = np.array([text.encode() for text in texts], dtype=object)
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", output)])

    def _text(self, tokens: list[int], request_id: str, row: int) -> str:
        pieces = token_text(self._tokenizer, tokens, skip_special_tokens=self._skip)
        if len(tokens) > 1 and self._tokenizer.strips_first_space:
            # Several tokens at once are a whole answer; one is somewhere in a stream.
            pieces = pieces.removeprefix(b" ")
        if not request_id:
            return pieces.decode("utf-8", "replace")
        key = (request_id, row)
        whole, rest = complete_bytes(self._unfinished.pop(key, b""), pieces)
        if rest:
            self._unfinished[key] = rest
            if len(self._unfinished) > _REMEMBERED:
                self._unfinished.popitem(last=False)
        return whole.decode("utf-8", "replace")
