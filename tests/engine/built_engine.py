"""What trtllm-build would leave behind: config.json and empty-looking engine files.

Follows ``tensorrt_llm/builder.py`` of the 1.x releases: drafts and EAGLE layers are added to
max_seq_len, enumerations are written as their numbers or names, a plugin that is off as null.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.engine.tensorrt import Command

MODES = {
    "draft_tokens_external": 2,
    "medusa": 4,
    "lookahead_decoding": 8,
    "explicit_draft_tokens": 16,
    "eagle": 32,
}
PLAIN = ("checkpoint_dir", "output_dir", "workers", "lora_target_modules", "max_lora_rank")


def flags_of(command: Command) -> dict[str, Any]:
    """Flags and values of a command line; a switch is True, several values are a list."""
    flags: dict[str, Any] = {}
    name = ""
    for word in command.argv[1:]:
        if word.startswith("--"):
            name = word[2:]
            flags[name] = True
        elif flags[name] is True:
            flags[name] = word
        else:
            flags[name] = [*([flags[name]] if isinstance(flags[name], str) else flags[name]), word]
    return flags


def write_engine(
    path: Path,
    command: Command,
    *,
    version: str,
    tensor: int = 1,
    pipeline: int = 1,
    layers: int = 32,
    quant_algo: str | None = None,
    kv_cache_quant_algo: str | None = None,
    tree_layers: int = 0,
    model: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the directory and return the contents of its config.json.

    ``model`` is the config.json of the checkpoint, which the builder carries over.
    """
    flags = flags_of(command)
    mode = flags.pop("speculative_decoding_mode", None)
    drafts = int(flags.pop("max_draft_len", 0))
    sizes = {name: int(flags.pop(name)) for name in list(flags) if name in SIZES}
    sizes["max_seq_len"] += drafts + (tree_layers if mode == "eagle" else 0)
    modules = flags.get("lora_target_modules") or []
    config = {
        "version": version,
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "dtype": "bfloat16",
            "vocab_size": 128256,
            **(model or {}),
            "num_hidden_layers": layers,
            "mapping": {"world_size": tensor * pipeline, "tp_size": tensor, "pp_size": pipeline},
            "quantization": {"quant_algo": quant_algo, "kv_cache_quant_algo": kv_cache_quant_algo},
        },
        "build_config": {
            "opt_num_tokens": None,
            **sizes,
            "kv_cache_type": flags.pop("kv_cache_type").upper(),
            "gather_context_logits": bool(flags.pop("gather_context_logits", False)),
            "gather_generation_logits": bool(flags.pop("gather_generation_logits", False)),
            "max_draft_len": drafts,
            "speculative_decoding_mode": MODES[mode] if mode else 1,
            "lora_config": {
                "max_lora_rank": int(flags.get("max_lora_rank", 64)),
                "lora_target_modules": [modules] if isinstance(modules, str) else modules,
            },
            "plugin_config": {
                name: _plugin(value) for name, value in flags.items() if name not in PLAIN
            },
        },
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    for rank in range(tensor * pipeline):
        (path / f"rank{rank}.engine").write_bytes(b"ftrt")
    return config


SIZES = (
    "max_batch_size",
    "max_input_len",
    "max_seq_len",
    "max_num_tokens",
    "max_beam_width",
    "opt_num_tokens",
)


def _plugin(value: Any) -> Any:
    if value in ("enable", "disable"):
        return True if value == "enable" else None
    return int(value) if isinstance(value, str) and value.isdigit() else value
