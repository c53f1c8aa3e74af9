"""An engine on ``tensorrt_llm.LLM.generate_async``.

One idea a file: ``settings`` (what the deployment decided), ``devices`` (which GPUs are this
instance's), ``load`` (model.yaml to an LLM), ``sampling`` (what a request asks, in the LLM API's
words), ``output`` (what comes back), ``statistics`` (iteration statistics to figures), ``engine``
(the event loop around it). Signatures are those of the LLM API reference of TensorRT-LLM 1.0 to
1.4 (nvidia.github.io/TensorRT-LLM/<release>/llm-api); arguments whose place has changed between
releases are passed by name.
"""

from __future__ import annotations

from .load import create

__all__ = ["create"]
