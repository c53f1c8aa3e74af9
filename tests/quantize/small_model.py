"""A llama small enough to quantize in seconds, with a tokenizer of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_small_model(path: Path, **changes: Any) -> Path:
    """Write config, bfloat16 weights and tokenizer; ``changes`` go into the config."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 384,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 3e-6,
        "tie_word_embeddings": True,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 257,
        "rope_parameters": {"rope_type": "default", "rope_theta": 75000.0},
        "dtype": "bfloat16",
        **changes,
    }
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 2:
                # Large enough that the layers shape the output, with a few loud inputs.
                value.normal_(0, 0.15)
                value[:, ::17] *= 3
            elif "norm" in name:
                value.uniform_(0.5, 1.5)
    model.save_pretrained(path)
    _write_tokenizer(path)
    return path


def _write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=CHAT_TEMPLATE
    )
    fast.save_pretrained(path)
