"""Which layers of a model are quantized, by name, and what a pattern of ``exclude`` matches."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from toolkit.checkpoint.architecture import Architecture
from toolkit.errors import SpecError, UnsupportedError

# Runtimes fuse these into one matrix product, so one member cannot keep another format.
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
LM_HEAD = "lm_head"


def linear_widths(arch: Architecture) -> dict[str, tuple[int, int]]:
    """``{module name: (inputs, outputs)}`` of every linear layer, ``lm_head`` included."""
    hidden, inner = arch.hidden_size, arch.intermediate_size
    queries, keys = arch.num_heads * arch.head_dim, arch.num_kv_heads * arch.head_dim
    layer = {
        "self_attn.q_proj": (hidden, queries),
        "self_attn.k_proj": (hidden, keys),
        "self_attn.v_proj": (hidden, keys),
        "self_attn.o_proj": (queries, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    widths = {
        f"model.layers.{index}.{name}": shape
        for index in range(arch.num_layers)
        for name, shape in layer.items()
    }
    widths[LM_HEAD] = (hidden, arch.vocab_size)
    return widths


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern of ``quantization.exclude`` means the module ``name``.

    The pattern may use ``*`` and ``?`` and is compared with the whole name and with every tail
    of it that starts after a dot, so ``down_proj``, ``mlp.*`` and ``model.layers.0.*`` all work.
    """
    tail = name
    while True:
        if fnmatchcase(tail, pattern):
            return True
        _, dot, tail = tail.partition(".")
        if not dot:
            return False


def excluded(names: Iterable[str], patterns: Iterable[str]) -> frozenset[str]:
    """Those of ``names`` that a pattern matches."""
    patterns = tuple(patterns)
    return frozenset(name for name in names if any(matches(pattern, name) for pattern in patterns))


def quantized_modules(arch: Architecture, patterns: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """``{module name: (inputs, outputs)}`` of the layers that ``exclude`` leaves to quantize.

    Raises:
        SpecError: a pattern matches nothing.
        UnsupportedError: every layer is excluded, a part of layers that runtimes fuse is, or a
            tied ``lm_head`` is not.
    """
    widths = linear_widths(arch)
    for pattern in patterns:
        if not any(matches(pattern, name) for name in widths):
            raise _matches_nothing(pattern, widths)
    out = excluded(widths, patterns)
    kept = {name: shape for name, shape in widths.items() if name not in out}
    if not any(name != LM_HEAD for name in kept):
        raise UnsupportedError(
            "every layer is excluded from quantization",
            where="quantization.exclude",
            hint="exclude less, or set quantization.weights to none",
        )
    if LM_HEAD in kept and arch.tied_embeddings:
        raise UnsupportedError(
            "lm_head shares its weights with the embedding table, which stays in full precision",
            where="quantization.exclude",
            hint="add lm_head to quantization.exclude",
        )
    _check_fused(widths, out)
    return kept


def _check_fused(widths: Iterable[str], out: frozenset[str]) -> None:
    for name in widths:
        parent, _, leaf = name.rpartition(".")
        for group in FUSED:
            if leaf != group[0]:
                continue
            left_out = [member for member in group if f"{parent}.{member}" in out]
            if left_out and len(left_out) < len(group):
                raise UnsupportedError(
                    f"{parent} excludes {', '.join(left_out)} but quantizes the rest of "
                    f"{', '.join(group)}, which runtimes compute as one product",
                    where="quantization.exclude",
                    hint=f"exclude all of {', '.join(group)} or none",
                )


def _matches_nothing(pattern: str, names: Iterable[str]) -> SpecError:
    leaves = sorted({name.rpartition(".")[2] for name in names})
    near = difflib.get_close_matches(pattern.rpartition(".")[2], leaves, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    return SpecError(
        f"{pattern!r} matches no layer",
        where="quantization.exclude",
        hint=f"{meant}layers are {', '.join(leaves)}, with names like {next(iter(names))}",
    )
