"""Rewrite a deployment file from TensorRT engines to the LLM API."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from toolkit.engine.nvidia import Target, settled_formats, target_of
from toolkit.engine.nvidia.naming import field_value, is_default, names
from toolkit.errors import SpecError, UnsupportedError
from toolkit.pipeline import migration_rules as rules
from toolkit.pipeline.migration_rules import Rule
from toolkit.releases import Release, release
from toolkit.spec import editing
from toolkit.spec.document import Json, parse
from toolkit.spec.loading import LoadedDeployment, validate
from toolkit.spec.models import (
    Deployment,
    Eagle,
    Lookahead,
    Medusa,
    Quantization,
    WeightFormat,
)
from toolkit.spec.writing import scalar, to_yaml

_WEIGHTS: tuple[WeightFormat, ...] = ("fp8", "int4_awq", "none")


@dataclass(frozen=True, slots=True)
class Change:
    """One changed field; None where it was, or is, absent.

    Attributes:
        field: Path in the deployment file.
        rule: Why, and what to use instead.
        exact: Whether the new value does what the old one did.
    """

    field: str
    before: Json
    after: Json
    rule: Rule
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Migration:
    """A rewritten deployment file.

    Attributes:
        text: The new file, whole.
        changes: In the order in which they were made.
        meanings: Fields that are absent, before and after, and mean something else now.
        rebuilt: What earlier builds made that is not read any more.
        rewritten: The whole file was written anew: comments are lost.
    """

    text: str
    deployment: Deployment
    release: Release
    changes: tuple[Change, ...]
    meanings: tuple[Rule, ...]
    rebuilt: tuple[Rule, ...]
    rewritten: bool


def migrate(
    loaded: LoadedDeployment,
    text: str,
    to: str,
    *,
    environ: Mapping[str, str] = os.environ,
) -> Migration:
    """The deployment file ``text`` for the LLM API of the release ``to``.

    Args:
        loaded: What ``text`` says, loaded without overrides.
        text: The file.
        to: A release, such as ``1.3.0rc27``.
        environ: Values of ``${NAME}`` in the text.

    Raises:
        SpecError: the release is not known, or the file is for the CPU runtime.
        UnsupportedError: the release has no LLM API.
    """
    target = release(to, where="--to")
    if "pytorch" not in target.runtimes:
        raise UnsupportedError(
            f"{target.title} has no LLM API", where="--to", hint="use 1.0 or newer"
        )
    deployment = loaded.deployment
    if deployment.engine.runtime not in ("tensorrt", "pytorch"):
        raise SpecError(
            f"engine.runtime is {deployment.engine.runtime}: there are no engines to migrate",
            where=str(loaded.path),
            hint="set engine.runtime: pytorch and engine.release by hand",
        )
    changes = tuple(_changes(deployment, loaded.data, target))
    wanted = _expected(loaded.data, changes, str(loaded.path))
    edited = _edited(text, changes)
    if edited is None or _read(edited, str(loaded.path), environ) != wanted:
        edited, whole = to_yaml(wanted), True
    else:
        whole = False
    engines = deployment.engine.runtime == "tensorrt"
    return Migration(
        text=edited,
        deployment=wanted,
        release=target,
        changes=changes,
        meanings=tuple(_meanings(deployment)) if engines else (),
        rebuilt=rules.REBUILT if engines else (),
        rewritten=whole,
    )


def _meanings(deployment: Deployment) -> Iterator[Rule]:
    if deployment.engine.cuda_graphs.enabled is None:
        yield rules.GRAPHS


def _changes(deployment: Deployment, data: Mapping[str, Json], target: Release) -> Iterator[Change]:
    engine = deployment.engine
    for field, value, rule in (
        ("engine.runtime", "pytorch", rules.RUNTIME),
        ("engine.release", target.version, rules.RELEASE),
    ):
        before = _given(data, field)
        if before != value:
            yield Change(field, before, value, rule)
    if deployment.serving.image and target_of(deployment).release.version != target.version:
        yield Change("serving.image", deployment.serving.image, None, rules.IMAGE)
    yield from _removed(deployment, data, target)
    yield from _speculation(deployment, data, target)
    moved = deployment.model_copy(
        update={
            "engine": engine.model_copy(update={"runtime": "pytorch", "release": target.version})
        }
    )
    yield from _formats(deployment, data, target_of(moved))


def _removed(deployment: Deployment, data: Mapping[str, Json], target: Release) -> Iterator[Change]:
    """Fields that are in the file and that the LLM API has nothing for."""
    engine = deployment.engine
    for rule in rules.RULES:
        before = _given(data, rule.field)
        if before is None or names(target, rule.field, "llm_args"):
            continue
        # A value that is the default asked for nothing.
        asked = field_value(engine, rule.field)
        yield Change(
            rule.field, before, None, rule, exact=is_default(engine, rule.field) or not asked
        )


def _speculation(
    deployment: Deployment, data: Mapping[str, Json], target: Release
) -> Iterator[Change]:
    field, chosen = "engine.speculation", deployment.engine.speculation
    if chosen is None:
        return
    before = _given(data, field)
    if isinstance(chosen, Lookahead):
        # Guesses of ngram_size tokens, the first of which is the one that is known.
        drafts = max(chosen.ngram_size - 1, 1)
        after: Json = {"method": "ngram", "max_draft_len": drafts}
        yield Change(field, before, after, rules.LOOKAHEAD, exact=False)
        return
    known = {each.method for each in target.speculation_methods if each.runtime == "pytorch"}
    if chosen.method in known:
        return
    rule = {Medusa: rules.MEDUSA, Eagle: rules.EAGLE}.get(type(chosen), rules.OTHER_METHOD)
    yield Change(field, before, None, rule, exact=False)


def _formats(deployment: Deployment, data: Mapping[str, Json], target: Target) -> Iterator[Change]:
    spec = deployment.quantization
    chosen = _nearest(spec, target)
    for name in ("weights", "kv_cache"):
        before, after = getattr(spec, name), getattr(chosen, name)
        if before != after:
            field = f"quantization.{name}"
            yield Change(field, before, after, rules.FORMAT, exact=False)
    blocks = ("int4_awq", "w4a8_awq", "auto")
    if spec.block_size is not None and spec.weights in blocks and chosen.weights not in blocks:
        yield Change("quantization.block_size", spec.block_size, None, rules.BLOCKS)


def _nearest(spec: Quantization, target: Target) -> Quantization:
    """``spec``, or the first pair of formats that the LLM API computes there."""
    gpu = target.gpu
    best, cache = ((gpu.weights,), (gpu.kv_cache,)) if gpu else ((), ())
    for weights in (spec.weights, *best, *_WEIGHTS):
        for kv_cache in (spec.kv_cache, *cache, "none"):
            tried = spec.model_copy(update={"weights": weights, "kv_cache": kv_cache})
            try:
                settled_formats(tried, target)
            except UnsupportedError:
                continue
            return tried
    return spec


def _given(data: Mapping[str, Json], field: str) -> Json:
    """The file's own value of a field; None where it is absent."""
    value: Json = dict(data)
    for step in field.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _expected(data: Mapping[str, Json], changes: tuple[Change, ...], label: str) -> Deployment:
    changed = deepcopy(dict(data))
    for change in changes:
        *above, last = change.field.split(".")
        section: dict[str, Json] = changed
        for step in above:
            below = section.setdefault(step, {})
            assert isinstance(below, dict), "a section, or the file would not have loaded"
            section = below
        if change.after is None:
            section.pop(last, None)
        else:
            section[last] = change.after
    # JSON is YAML, and no ${NAME} is left in the data.
    root = parse(json.dumps(changed), label, environ=None)
    assert root is not None, "a deployment has a name"
    return validate(root)


def _edited(text: str, changes: tuple[Change, ...]) -> str | None:
    """The text with every change made in its place; None where that is not sound."""
    try:
        for change in changes:
            path = change.field.split(".")
            if change.after is None:
                text = editing.remove(text, path)
            else:
                text = editing.set_value(text, path, scalar(change.after))
    except (editing.UnsoundError, KeyError):
        return None
    return text


def _read(text: str, label: str, environ: Mapping[str, str]) -> Deployment | None:
    try:
        root = parse(text, label, environ=environ)
        return None if root is None else validate(root)
    except SpecError:
        return None


def read_text(path: Path) -> str:
    """The file's text, byte order mark left out."""
    return path.read_text(encoding="utf-8-sig")
