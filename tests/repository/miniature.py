"""A checkpoint and a compiled engine in miniature: what rendering reads, without weights."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = "the quick brown fox jumps over the lazy dog while größte Füchse 🎉 träumen 日本語 "


def write_checkpoint(folder: Path) -> Path:
    """Configuration and a byte-level tokenizer of some 300 tokens; no weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def write_engine(folder: Path) -> Path:
    """A compiled engine's folder as far as rendering reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = {"model_type": "llama", "vocab_size": 320, "max_position": 8192}
    target |= {"carried": {}, "kv_cache": None}
    engine = {"runtime": "openvino", "openvino": "0", "target": target, "draft": None}
    (folder / "engine.json").write_text(json.dumps(engine))
    (folder / "openvino_model.xml").write_text("<net/>")
    (folder / "openvino_model.bin").write_bytes(b"weights")
    return folder
