"""``tensorrt_llm.executor`` as far as the adapter uses it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""
    lora_ckpt_source: str = "hf"
