"""Fields that a request may carry without the model having them.

Triton refuses an unknown tensor by its name, but its generate endpoints hand an unknown JSON
field over as a request parameter, where it would be overlooked.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection

from .tensors import FieldError

UPSTREAM = frozenset(
    {
        "decoder_text_input",
        "embedding_bias_weights",
        "embedding_bias_words",
        "guided_decoding_guide",
        "guided_decoding_guide_type",
        "image_bytes_input",
        "image_input",
        "image_url_input",
        "lora_config",
        "lora_task_id",
        "lora_weights",
        "num_draft_tokens",
        "prompt_embedding_table",
        "prompt_table_extra_id",
        "prompt_vocab_size",
        "return_context_logits",
        "return_generation_logits",
        "use_draft_logits",
        "video_bytes_input",
    }
)
"""Inputs of NVIDIA's ensemble and BLS model that are not served here."""

# What Triton's own clients and frontends send as parameters; "Streaming" is upstream's client.
_PARAMETERS = frozenset({"Streaming", "parameters", "priority", "timeout"})
_PREFIXES = ("triton_", "sequence_", "binary_data", "headers")


def check_parameters(parameters: str, known: Collection[str]) -> None:
    """Refuse a parameter that is an unsupported field, or a known one spelt wrong.

    ``parameters`` is the JSON text that the server hands over.

    Raises:
        FieldError: names the field, and the one that was probably meant.
    """
    if parameters in ("", "{}"):
        return
    for name, value in json.loads(parameters).items():
        if name in UPSTREAM and value not in (False, 0, ""):
            raise FieldError(name, "is not supported")
        if name in UPSTREAM or name in _PARAMETERS or name.startswith(_PREFIXES):
            continue
        meant = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if meant:
            raise FieldError(name, f"is not a field; {meant[0]} is")
