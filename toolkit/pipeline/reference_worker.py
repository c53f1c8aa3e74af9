"""A process of its own that decodes a checkpoint greedily, by transformers and in float32.

Run as ``python -m toolkit.pipeline.reference_worker`` with a request as JSON on standard input:
``{"checkpoint": PATH, "prompts": [...], "tokens": N}``. The answers go to standard output as a JSON
list of ``{"prompt", "tokens", "text"}``.

Nothing here is shared with the engines that are judged by it: the graph is transformers', only the
numbers are the checkpoint's, dequantized where they are quantized. Activations are not quantized.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.quantize.unified import UnifiedCheckpoint

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def decode(checkpoint: Path, prompts: Sequence[str], tokens: int) -> list[dict[str, Any]]:
    """The greedy continuation of each prompt, at most ``tokens`` long and before any end token.

    A prompt is left out if nothing follows it, or if its text would be tokenized otherwise: then
    a served text could not be compared with it token by token.
    """
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ends = _end_tokens(checkpoint)
    model = _model(checkpoint)
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            ids = _continue(model, tokenizer.encode(prompt).ids, tokens, ends)
            text = tokenizer.decode(ids)
            if ids and tokenizer.encode(text, add_special_tokens=False).ids == ids:
                found.append({"prompt": prompt, "tokens": ids, "text": text})
    return found


def _continue(model: Any, prompt: list[int], tokens: int, ends: frozenset[int]) -> list[int]:
    import torch

    past, fed = None, prompt
    found: list[int] = []
    while len(found) < tokens:
        answer = model(torch.tensor([fed]), past_key_values=past, use_cache=True)
        past = answer.past_key_values
        following = int(answer.logits[0, -1].argmax())
        if following in ends:
            break
        found.append(following)
        fed = [following]
    return found


def _end_tokens(checkpoint: Path) -> frozenset[int]:
    from toolkit.checkpoint import read_architecture

    return frozenset(read_architecture(checkpoint).eos_token_ids)


def _model(checkpoint: Path) -> Any:
    """transformers' model of the checkpoint's family with its numbers, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # what is stored is dequantized here
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    missing, unexpected = model.load_state_dict(_weights(checkpoint), strict=False, assign=True)
    model.tie_weights()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if unexpected or set(missing) - tied:
        raise ValueError(f"missing: {sorted(missing)}, unexpected: {sorted(unexpected)}")
    return model


def _weights(checkpoint: Path) -> dict[str, Any]:
    import numpy as np
    import torch

    stored = UnifiedCheckpoint(checkpoint)
    linear = set(stored.linear_names())
    found = {}
    for name in stored.names:
        module, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias"):
            continue  # scales, of which the weights below know
        quantized = kind == "weight" and module in linear
        values = stored.linear(module).effective_weight() if quantized else stored.tensor(name)
        found[name] = torch.from_numpy(np.array(values, dtype=np.float32))
    return found


def _die_with_parent() -> None:
    """A build that is killed leaves nothing running."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Answer one request."""
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print
    request: Mapping[str, Any] = json.load(sys.stdin)
    found = decode(Path(request["checkpoint"]), request["prompts"], request["tokens"])
    answers.write(json.dumps(found))
    answers.close()


if __name__ == "__main__":
    main()
