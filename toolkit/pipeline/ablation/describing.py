"""What the report says of a ladder: rungs with what they change in the file, and what is left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from toolkit.bench.ablation.report import LeftOutStep, Removal, RungFacts
from toolkit.pipeline.ablation.features import FEATURES
from toolkit.pipeline.ablation.ladder import Ladder, Rung
from toolkit.spec.models import Deployment

_TITLES = {feature.key: feature.title for feature in FEATURES}
_PAYS = {feature.key: feature.pays for feature in FEATURES}


def all_facts(
    ladder: Ladder, digests: Mapping[str, str], failed: Collection[str] = ()
) -> tuple[RungFacts, ...]:
    """The rungs that were chosen, by key with the digest of what was served.

    A step adds what the measured step before it lacks, which is more than one feature where
    steps between were not chosen, or ``failed``.
    """
    before: frozenset[str] | None = None
    found = []
    for rung in ladder.rungs:
        if rung.key in digests:
            found.append(_facts(ladder, rung, before, digests[rung.key]))
            before = before if rung.key in failed else rung.on
    return tuple(found)


def _facts(ladder: Ladder, rung: Rung, before: frozenset[str] | None, digest: str) -> RungFacts:
    full, is_step = ladder.full, rung in ladder.steps
    gained = rung.on - before if before is not None and is_step else frozenset()
    adds = tuple(feature.key for feature in FEATURES if feature.key in gained)
    return RungFacts(
        key=rung.key,
        title=f"{rung.title} (full)" if rung is full else rung.title,
        adds=adds,
        on=tuple(feature.key for feature in FEATURES if feature.key in rung.on),
        is_step=is_step,
        is_full=rung is full,
        protocol="gateway, OpenAI API" if rung.by_gateway else "Triton, gRPC",
        changes=tuple(differences(full.deployment, rung.deployment)),
        digest=digest,
        pays=_PAYS[adds[0]] if len(adds) == 1 else "",
    )


def removals(ladder: Ladder) -> tuple[Removal, ...]:
    """Which rung is full without which feature."""
    return tuple(
        Removal(feature=key, title=_TITLES[key], rung=rung) for key, rung in ladder.removed
    )


def left_out(ladder: Ladder) -> tuple[LeftOutStep, ...]:
    """What has no rung of its own."""
    return tuple(
        LeftOutStep(key=one.key, title=one.title, reason=one.reason) for one in ladder.left_out
    )


def differences(full: Deployment, other: Deployment) -> Iterator[str]:
    """Fields in which ``other`` differs, as ``engine.limits.max_batch_size = 1``."""
    yield from _differences(full.model_dump(mode="json"), other.model_dump(mode="json"), ())


def _differences(
    one: Mapping[str, Any], other: Mapping[str, Any], above: Sequence[str]
) -> Iterator[str]:
    for name in dict.fromkeys([*one, *other]):
        before, after = one.get(name), other.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, (*above, name))
        else:
            yield f"{'.'.join((*above, name))} = {_text(after)}"


def _text(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
