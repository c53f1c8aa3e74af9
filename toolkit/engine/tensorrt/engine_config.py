"""The config.json that ``trtllm-build`` writes beside the engines, with types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import read_json
from toolkit.errors import SpecError

CONFIG = "config.json"

_MODES = {
    1: None,
    2: "draft_tokens_external",
    4: "medusa",
    8: "lookahead_decoding",
    16: "explicit_draft_tokens",
    32: "eagle",
}
"""SpeculativeDecodingMode, an IntFlag whose members count up from 1
(tensorrt_llm/models/modeling_utils.py)."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an engine was built for; sizes in requests and tokens.

    Attributes:
        version: TensorRT-LLM that built it.
        speculative_mode: As ``--speculative_decoding_mode`` says it; None without speculation.
        plugins: ``plugin_config`` as it stands; an option that is off is None or False.
    """

    version: str
    architecture: str
    dtype: str
    vocab_size: int
    num_layers: int
    world_size: int
    tensor: int
    pipeline: int
    quant_algo: str | None
    kv_cache_quant_algo: str | None
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    max_beam_width: int
    opt_num_tokens: int | None
    kv_cache_type: str
    gather_context_logits: bool
    gather_generation_logits: bool
    speculative_mode: str | None
    max_draft_len: int
    max_lora_rank: int | None
    lora_target_modules: tuple[str, ...]
    plugins: Mapping[str, Any]

    def plugin(self, name: str) -> Any:
        """An option of ``plugin_config``; None where it is off or not known."""
        return self.plugins.get(name)


def read_engine_config(path: Path) -> EngineConfig:
    """The config.json of the engine directory ``path``.

    Raises:
        SpecError: it is missing, is not JSON, or lacks a field.
    """
    root = _Section(read_json(path / CONFIG), str(path / CONFIG))
    model, build = root.section("pretrained_config"), root.section("build_config")
    mapping, quantization = model.section("mapping"), model.section("quantization")
    lora = build.content.get("lora_config") or {}
    return EngineConfig(
        version=root.text("version"),
        architecture=model.text("architecture"),
        dtype=model.text("dtype"),
        vocab_size=model.number("vocab_size"),
        num_layers=model.number("num_hidden_layers"),
        world_size=mapping.number("world_size"),
        tensor=mapping.number("tp_size"),
        pipeline=mapping.number("pp_size"),
        quant_algo=quantization.optional_text("quant_algo"),
        kv_cache_quant_algo=quantization.optional_text("kv_cache_quant_algo"),
        max_batch_size=build.number("max_batch_size"),
        max_input_len=build.number("max_input_len"),
        max_seq_len=build.number("max_seq_len"),
        max_num_tokens=build.number("max_num_tokens"),
        max_beam_width=build.number("max_beam_width"),
        opt_num_tokens=build.optional_number("opt_num_tokens"),
        kv_cache_type=build.text("kv_cache_type").rpartition(".")[2].lower(),
        gather_context_logits=bool(build.content.get("gather_context_logits")),
        gather_generation_logits=bool(build.content.get("gather_generation_logits")),
        speculative_mode=_mode(build),
        max_draft_len=build.optional_number("max_draft_len") or 0,
        max_lora_rank=lora.get("max_lora_rank"),
        lora_target_modules=tuple(lora.get("lora_target_modules") or ()),
        plugins=build.section("plugin_config").content,
    )


def _mode(build: _Section) -> str | None:
    value = build.content.get("speculative_decoding_mode", 1)
    if isinstance(value, str):
        name = value.rpartition(".")[2].lower()
        return None if name == "none" else name
    if value not in _MODES:
        raise SpecError(
            f"speculative_decoding_mode {value!r} is not known", where=build.at("build_config")
        )
    return _MODES[value]


@dataclass(frozen=True, slots=True)
class _Section:
    content: Mapping[str, Any]
    where: str
    path: str = ""

    def at(self, name: str) -> str:
        return f"{self.where}: {self.path}{name}"

    def section(self, name: str) -> _Section:
        value = self.content.get(name)
        if not isinstance(value, Mapping):
            raise self._missing(name, "a section")
        return _Section(value, self.where, f"{self.path}{name}.")

    def text(self, name: str) -> str:
        value = self.content.get(name)
        if not isinstance(value, str) or not value:
            raise self._missing(name, "a text")
        return value

    def optional_text(self, name: str) -> str | None:
        return self.text(name) if self.content.get(name) is not None else None

    def number(self, name: str) -> int:
        value = self.content.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._missing(name, "a whole number")
        return value

    def optional_number(self, name: str) -> int | None:
        return self.number(name) if self.content.get(name) is not None else None

    def _missing(self, name: str, kind: str) -> SpecError:
        given = self.content.get(name)
        why = "is missing" if given is None else f"is {given!r}, expected {kind}"
        return SpecError(
            f"{name} {why}",
            where=self.at(name),
            hint="this is no engine of a TensorRT-LLM release that the toolkit knows",
        )
