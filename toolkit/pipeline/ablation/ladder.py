"""From one deployment file to the ladder: naive, each optimization added, each one taken away.

Pure: what a runtime, a release or a GPU's memory refuses is asked of the caller's ``check``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from toolkit.errors import SpecError, UnsupportedError
from toolkit.pipeline.ablation.features import (
    FEATURES,
    IN_FLIGHT,
    SCHEDULING,
    STATIC,
    Feature,
    derived,
)
from toolkit.spec.models import Deployment

NAIVE = "naive"
WITHOUT = "without-"
_TITLES = {feature.key: feature.title for feature in FEATURES}

Check = Callable[[Deployment], str | None]
"""Why a deployment cannot be built or served; None where it can."""


@dataclass(frozen=True)
class Rung:
    """One deployment that is measured.

    Attributes:
        key: ``naive``, the key of the feature that it adds, or ``without-`` and a feature's.
        adds: What it has over the rung before it (for ``without-``: nothing).
        on: All features that it has.
    """

    key: str
    title: str
    adds: tuple[str, ...]
    on: frozenset[str]
    deployment: Deployment

    @property
    def by_gateway(self) -> bool:
        """Asked through the gateway; otherwise Triton itself is."""
        return SCHEDULING in self.on


@dataclass(frozen=True)
class LeftOut:
    """A step that is not on the ladder, or that is on every rung of it, and why."""

    key: str
    title: str
    reason: str


@dataclass(frozen=True)
class Ladder:
    """All rungs.

    Attributes:
        steps: From naive to full, each with all that the one before it has.
        removed: For each feature that can be taken from full alone, the key of the rung that
            does without: one of ``steps`` where that is the same, else one of ``extra``.
        extra: Rungs that are on no step.
    """

    steps: tuple[Rung, ...]
    extra: tuple[Rung, ...]
    removed: tuple[tuple[str, str], ...]
    left_out: tuple[LeftOut, ...]

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Everything to measure."""
        return (*self.steps, *self.extra)

    @property
    def full(self) -> Rung:
        """The rung with everything."""
        return self.steps[-1]

    def chosen(self, words: Sequence[str]) -> tuple[Rung, ...]:
        """The rungs that ``words`` name: their keys, ``full``, ``ladder`` or ``all``.

        Raises:
            SpecError: there is no such rung in this ladder.
        """
        keys: set[str] = set()
        for word in words:
            keys.update(self._named(word))
        return tuple(rung for rung in self.rungs if rung.key in keys)

    def _named(self, word: str) -> Iterable[str]:
        groups = {
            "all": self.rungs,
            "ladder": self.steps,
            "full": (self.full,),
            **{rung.key: (rung,) for rung in self.rungs},
        }
        if word in groups:
            return (rung.key for rung in groups[word])
        missing = next((one for one in self.left_out if one.key == word), None)
        near = "".join(f"did you mean {one}? " for one in get_close_matches(word, groups, n=1))
        raise SpecError(
            f"there is no rung {word!r}" + (f": {missing.reason}" if missing else ""),
            where="--rungs",
            hint=f"{near}choose among {', '.join(groups)}",
        )


def ladder(deployment: Deployment, check: Check = lambda _: None) -> Ladder:
    """Derive every rung from ``deployment``.

    A feature that the file does not have, or that the runtime refuses where it would be added,
    is left out by name. One that nothing works without (a model that fits its GPU only in four
    bits) is on from the start, which is said likewise.

    Raises:
        UnsupportedError: the deployment itself is refused.
    """
    if refusal := check(deployment):
        raise UnsupportedError(refusal, where=deployment.name)
    left_out = [
        LeftOut(feature.key, feature.title, reason)
        for feature in FEATURES
        if (reason := feature.lacking(deployment))
    ]
    missing = {one.key for one in left_out}
    have = [feature for feature in FEATURES if feature.key not in missing]
    kept, forced = _indispensable(deployment, have, check)
    left_out += forced
    steps, refused = _steps(deployment, [f for f in have if f.key not in kept], kept, check)
    left_out += refused
    extra, removed = _removals(deployment, steps, kept, check)
    return Ladder(steps, extra, removed, tuple(left_out))


def _indispensable(
    deployment: Deployment, have: Sequence[Feature], check: Check
) -> tuple[frozenset[str], list[LeftOut]]:
    """The fewest features with which the lowest rung works, and why it does not without."""
    keys = [feature.key for feature in have]
    bare = check(derived(deployment, frozenset()))
    if bare is None:
        return frozenset(), []
    for count in range(1, len(keys) + 1):
        for some in itertools.combinations(keys, count):
            on = frozenset(some)
            if check(derived(deployment, on)) is None:
                reason = f"on from the start, because without it: {bare}"
                if IN_FLIGHT in on:  # it includes static batching, which adds nothing then
                    some, on = tuple(dict.fromkeys((STATIC, *some))), on | {STATIC}
                return on, [LeftOut(key, _TITLES[key], reason) for key in some]
    raise UnsupportedError(bare, where=deployment.name)


def _steps(
    deployment: Deployment, climbing: Sequence[Feature], kept: frozenset[str], check: Check
) -> tuple[tuple[Rung, ...], list[LeftOut]]:
    steps = [Rung(NAIVE, NAIVE, (), kept, derived(deployment, kept))]
    refused: list[LeftOut] = []
    waiting: list[str] = []
    for feature in climbing:
        on = steps[-1].on | {feature.key, *waiting}
        made = derived(deployment, on)
        if refusal := check(made):
            refused.append(LeftOut(feature.key, feature.title, refusal))
            if feature.key != STATIC:  # in-flight batching takes its place
                waiting.append(feature.key)
            continue
        adds = (*waiting, feature.key)
        title = "+ " + " and ".join(_TITLES[key] for key in adds)
        if feature.key == STATIC:
            title = feature.title
        elif feature.key == IN_FLIGHT:
            title = feature.title
            on -= {STATIC}
        steps.append(Rung(feature.key, title, adds, on, made))
        waiting = []
    if steps[-1].deployment != deployment:
        raise AssertionError("the last rung is the deployment itself")
    return tuple(steps), refused


def _removals(
    deployment: Deployment, steps: Sequence[Rung], kept: frozenset[str], check: Check
) -> tuple[tuple[Rung, ...], tuple[tuple[str, str], ...]]:
    full, known = steps[-1], {rung.on: rung.key for rung in steps}
    extra: list[Rung] = []
    removed: list[tuple[str, str]] = []
    for key in [feature.key for feature in FEATURES if feature.key in full.on - kept]:
        on = full.on - {key}
        if key == IN_FLIGHT and any(rung.key == STATIC for rung in steps):
            on |= {STATIC}
        if on not in known:
            made = derived(deployment, on)
            if check(made):
                continue
            rung = Rung(f"{WITHOUT}{key}", f"full without {_TITLES[key]}", (), on, made)
            extra.append(rung)
            known[on] = rung.key
        removed.append((key, known[on]))
    return tuple(extra), tuple(removed)
