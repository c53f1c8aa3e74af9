"""``tensorrt_llm.llmapi.llm_utils`` as far as the adapter uses it."""

from __future__ import annotations

from typing import Any


def update_llm_args_with_extra_dict(
    llm_args: dict[str, Any],
    llm_args_dict: dict[str, Any],
    extra_llm_api_options: str | None = None,
) -> dict[str, Any]:
    return {**llm_args, **llm_args_dict}
