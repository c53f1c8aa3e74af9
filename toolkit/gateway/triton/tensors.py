"""Work as Triton's request message, and Triton's responses as pieces.

The message is the KServe protocol's ModelInferRequest with raw tensors (little-endian, texts
with a four-byte length before them):
https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto
Names and types are those of ``repository/contracts/public.json``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.gateway.work import Final, FinishReason, Piece, Sampling, Usage, Work

TEXT = "text_output"
FINAL_FLAG = "triton_final_response"

_RESULTS = (
    TEXT,
    "finish_reason",
    "stop_reason",
    "num_input_tokens",
    "num_output_tokens",
    "num_cached_tokens",
    "total_draft_tokens",
    "total_accepted_draft_tokens",
)
_LOG_PROBS = ("output_log_probs", "output_ids")
_NO_END_TOKEN = -1
_FORMATS = {"BOOL": "?", "INT32": "i", "INT64": "q", "UINT64": "Q", "FP32": "f"}


def request(
    pb: Any,
    work: Work,
    inputs: Mapping[str, tuple[str, int]],
    outputs: frozenset[str],
    deadline_s: float | None,
) -> Any:
    """The message that asks for ``work``.

    Args:
        pb: ``tritonclient.grpc.service_pb2``.
        work: What to generate.
        inputs: Wire type and number of dimensions of each of the model's inputs.
        outputs: Names of the model's outputs.
        deadline_s: What is left of the request's time.
    """
    message = pb.ModelInferRequest(model_name=work.model, id=work.id)
    for name, value in _values(work, deadline_s):
        if name not in inputs:
            continue
        datatype, dimensions = inputs[name]
        many = value if isinstance(value, tuple) else (value,)
        tensor = message.inputs.add(name=name, datatype=datatype)
        tensor.shape.extend([1] * (dimensions - 1) + [len(many)])
        message.raw_input_contents.append(b"".join(_encode(each, datatype) for each in many))
    wanted = _RESULTS + (_LOG_PROBS if work.sampling.log_probs else ())
    for name in wanted:
        if name in outputs:
            message.outputs.add(name=name)
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    return message


def _values(work: Work, deadline_s: float | None) -> Iterator[tuple[str, Any]]:
    yield "text_input", work.prompt
    yield "stream", True
    yield "return_perf_metrics", True
    yield "add_special_tokens", work.add_special_tokens
    yield "skip_special_tokens", work.skip_special_tokens
    yield from _sampling(work.sampling)
    if deadline_s is not None:
        yield "deadline_ms", max(1, round(deadline_s * 1000))


def _sampling(sampling: Sampling) -> Iterator[tuple[str, Any]]:
    plain = (
        "max_tokens",
        "min_tokens",
        "temperature",
        "top_p",
        "top_k",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "seed",
    )
    for name in plain:
        value = getattr(sampling, name)
        if value is not None:
            yield name, value
    if sampling.stop:
        yield "stop_words", sampling.stop
    if sampling.ignore_eos:
        yield "end_id", _NO_END_TOKEN
    if sampling.log_probs:
        yield "return_log_probs", True
    if sampling.guide is not None:
        yield "guided_decoding_guide_type", sampling.guide.kind
        yield "guided_decoding_guide", sampling.guide.text
    if sampling.adapter is not None:
        yield "lora_name", sampling.adapter


def _encode(value: Any, datatype: str) -> bytes:
    if datatype == "BYTES":
        data = str(value).encode()
        return struct.pack("<I", len(data)) + data
    return struct.pack(f"<{_FORMATS[datatype]}", value)


def piece(answer: Any) -> Piece:
    """One response that is not the last."""
    raw = answer.raw_output_contents
    if len(raw) == 1 and answer.outputs[0].name == TEXT:
        return Piece(_text(raw[0]))
    found = {output.name: raw[index] for index, output in enumerate(answer.outputs)}
    return Piece(_text(found.get(TEXT, b"")), *_token_details(found))


def final(answer: Any) -> Final:
    """The last response."""
    raw = answer.raw_output_contents
    found = {output.name: raw[index] for index, output in enumerate(answer.outputs)}
    reason = _text(found.get("finish_reason", b""))
    stop = found.get("stop_reason")
    return Final(
        _text(found.get(TEXT, b"")),
        *_token_details(found),
        finish_reason=_reason(reason),
        stop_reason=_text(stop) if stop is not None else None,
        usage=Usage(
            prompt=_count(found, "num_input_tokens"),
            completion=_count(found, "num_output_tokens"),
            cached=_told(found, "num_cached_tokens"),
            drafted=_count(found, "total_draft_tokens"),
            accepted=_count(found, "total_accepted_draft_tokens"),
        ),
    )


def _reason(text: str) -> FinishReason:
    if text == "length" or text == "deadline":
        return text  # type: ignore[return-value]
    return "stop"


def _token_details(found: Mapping[str, bytes]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    ids, probs = found.get("output_ids", b""), found.get("output_log_probs", b"")
    return (
        struct.unpack(f"<{len(ids) // 4}i", ids),
        struct.unpack(f"<{len(probs) // 4}f", probs),
    )


def _text(raw: bytes) -> str:
    return raw[4 : 4 + int.from_bytes(raw[:4], "little")].decode(errors="replace")


def _count(found: Mapping[str, bytes], name: str) -> int:
    return _told(found, name) or 0


def _told(found: Mapping[str, bytes], name: str) -> int | None:
    raw = found.get(name, b"")
    return int.from_bytes(raw[:4], "little", signed=True) if raw else None
