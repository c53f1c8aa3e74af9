"""Queue policies that Triton would refuse, or that would never let a request through.

The rules are those of ``ValidateModelConfig`` in Triton core (src/model_config_utils.cc).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def policy_problems(config: Any) -> Iterator[str]:
    """All of one model's dynamic batching."""
    if not config.HasField("dynamic_batching"):
        return
    batching = config.dynamic_batching
    if config.max_batch_size < 1:
        yield "dynamic batching needs a max_batch_size above 0"
    for size in batching.preferred_batch_size:
        if not 0 < size <= config.max_batch_size:
            yield f"preferred_batch_size {size} is not within max_batch_size"
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield f"default_priority_level {default} is none of {levels} levels"
    if not levels and (default or batching.priority_queue_policy):
        yield "priorities are used without priority_levels"
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            yield f"priority_queue_policy {level} is none of {levels} levels"
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    for policy in policies:
        if policy.default_timeout_microseconds and policy.timeout_action != 0:
            yield "a request that waited too long would only be put off, not refused"
        if not policy.max_queue_size:
            yield "the queue has no bound, so it can only grow"
