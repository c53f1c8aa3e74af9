"""Whether a deployment of the CPU runtime fits into the memory that this machine has free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.capacity.plan import Line
from toolkit.checkpoint.architecture import Architecture
from toolkit.errors import UnsupportedError
from toolkit.quantize.check import ResolvedQuantization, check
from toolkit.quantize.modules import LM_HEAD, linear_widths
from toolkit.spec.models import Engine, Quantization

_MEMINFO = Path("proc/meminfo")
_GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""Control groups, version 2 and 1: limit, use, and what of that the kernel gives back."""

_GIB = 2**30
_STORED_BITS = {"none": 16, "fp8": 16, "w4a8_awq": 16, "int8_sq": 8, "int4_awq": 4, "nvfp4": 8}
"""Bits of a quantized weight in the compiled graph (toolkit.engine.openvino.weights)."""

_PLAIN_BITS = 16
_COPIES = 2

_REPACKED = 2
_MLP = "mlp.down_proj"
_WIDE, _NARROW = 3, 16
_PROCESS = 180 * 2**20
"""What the process of a deployed model holds beside the graph: 105 MiB of Python, NumPy and
OpenVINO's libraries, 75 of the tokenizer's, the server's and this repository's modules."""

_SCALE = 4
_U8_SCALES = 8
"""Bytes of scale and zero point beside each head of a token in an 8-bit cache: two float32."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """How the memory of the machine is used.

    Attributes:
        available: Bytes that the kernel says new programs may have.
        fixed: Everything but the KV cache.
        pool: Bytes of the KV cache.
        kv_bytes_per_token: Target and draft together.
        sequence_tokens: Tokens of the longest request, whole blocks.
    """

    available: int
    fixed: tuple[Line, ...]
    pool: int
    kv_bytes_per_token: float
    sequence_tokens: int
    tokens_per_block: int
    notes: tuple[str, ...] = ()

    @property
    def used(self) -> int:
        """Bytes of everything but the KV cache."""
        return sum(line.bytes for line in self.fixed)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, in whole blocks."""
        tokens = int(max(self.pool, 0) / self.kv_bytes_per_token)
        return tokens // self.tokens_per_block * self.tokens_per_block

    @property
    def full_requests(self) -> int:
        """Requests of the greatest length that fit at once."""
        return self.kv_tokens // self.sequence_tokens

    def lines(self) -> list[str]:
        """The sum, one term a line; the last is the total."""
        pool = max(self.pool, 0)
        terms = [
            *self.fixed,
            Line("KV cache", pool, f"{self.kv_tokens} tokens of {self.kv_bytes_per_token:.0f} B"),
            Line("left over", self.available - self.used - pool, "for the server and the system"),
            Line("free", self.available, "as the kernel says, or a container's limit"),
        ]
        return [str(term) for term in terms]


def fit_host(
    engine: Engine,
    resolved: ResolvedQuantization,
    arch: Architecture,
    *,
    draft: Architecture | None = None,
    available: int | None = None,
) -> HostPlan:
    """How the CPU engine uses the machine's memory.

    The cache is sized as the engine does it: what the limits need, or ``engine.kv_cache.size``,
    within its share of what is free beside the weights.

    Args:
        engine: A section that the CPU runtime accepts.
        resolved: Formats of weights and KV cache.
        arch: The target.
        draft: The draft model of draft-model speculation.
        available: Bytes; what the machine says if absent.

    Raises:
        UnsupportedError: it does not fit; the details hold the sum.
    """
    free = available_memory() if available is None else available
    fixed = tuple(_fixed(engine, resolved, arch, draft))
    block = engine.kv_cache.tokens_per_block
    sequence = -(-engine.limits.max_seq_len // block) * block
    per_token = sum(host_kv_bytes(each, resolved) for each in (arch, draft) if each is not None)
    wanted = engine.kv_cache.size or int(engine.limits.max_batch_size * sequence * per_token)
    share = int((free - sum(line.bytes for line in fixed)) * engine.kv_cache.free_memory_fraction)
    pool = min(wanted, share)
    notes: tuple[str, ...] = ()
    if 0 < pool < wanted:
        notes = (
            f"the KV cache is cut from {wanted / _GIB:.1f} to {pool / _GIB:.1f} GiB, the share "
            "of free memory that engine.kv_cache.free_memory_fraction leaves it",
        )
    plan = HostPlan(free, fixed, pool, per_token, sequence, block, notes)
    if plan.full_requests >= 1:
        return plan
    raise _refusal(plan, engine)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes to be had without swapping, within the limit of a container if there is one.

    The engine in the repository looks the same way (``paged_engine.memory``, which cannot
    import this).

    Raises:
        OSError: the kernel does not say.
    """
    available = _entry(_text(root / _MEMINFO), "MemAvailable:")
    if available is None:
        raise OSError(f"/{_MEMINFO} has no MemAvailable line")
    free = available * 1024
    for folder, limit, used, reclaimable in _GROUPS:
        most, taken = _text(root / folder / limit), _text(root / folder / used)
        if most.isdigit() and taken.isdigit():
            cache = _entry(_text(root / folder / "memory.stat"), reclaimable) or 0
            free = min(free, int(most) - int(taken) + cache)
    return max(free, 0)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _entry(text: str, name: str) -> int | None:
    lines = (line.split() for line in text.splitlines())
    return next((int(words[1]) for words in lines if words[:1] == [name]), None)


def _fixed(
    engine: Engine, resolved: ResolvedQuantization, arch: Architecture, draft: Architecture | None
) -> Iterator[Line]:
    element = inference_bytes(engine)
    size = _resident_bytes(arch, resolved, element)
    yield Line("weights", size, f"{resolved.weights.name}, as OpenVINO holds them")
    if draft is not None:
        size = _resident_bytes(draft, _plain(draft), element)
        yield Line("draft weights", size, "in 16 bit, as OpenVINO holds them")
    rows = engine.limits.max_batch_size * (
        1 + (engine.speculation.max_draft_len if engine.speculation else 0)
    )
    yield Line("logits", rows * arch.vocab_size * 4, f"{rows} rows in float32")
    tokens = engine.limits.max_num_tokens
    size = tokens * _activation_bytes(arch)
    yield Line("activations", size, f"estimate for {tokens} tokens a step")
    yield Line("process", _PROCESS, "Python, OpenVINO's and other libraries")


def inference_bytes(engine: Engine) -> int:
    """Bytes of a number in the CPU engine's arithmetic."""
    return 2 if engine.dtype == "bfloat16" else 4


def host_weight_bytes(arch: Architecture, resolved: ResolvedQuantization, element: int) -> int:
    """Bytes of the weights that a step reads: what is stored in 16 bit is computed in ``element``
    bytes and held so; integers stay as they are. Without the table of embeddings."""
    plain, integers = _weights(arch, resolved)
    return (plain + arch.vocab_size * arch.hidden_size) * element + integers


def _activation_bytes(arch: Architecture) -> int:
    """Bytes of activations for one token of a step, in float32.

    Gate, up and their product in the MLP's width, and about sixteen rows in the model's: residual,
    norms, queries, keys, values, what is made of them. Measured: 55 kB a token for SmolLM2-135M
    (576 and 1536 wide), 68 kB for a model 512 and 3072 wide.
    """
    return 4 * (_WIDE * arch.intermediate_size + _NARROW * arch.hidden_size)


def _resident_bytes(arch: Architecture, resolved: ResolvedQuantization, element: int) -> int:
    """Bytes of all weights in memory, once steps of one and of many tokens have run.

    OpenVINO 2026.4.1 converts weights of 16 bit, packs the result for its matrix products and
    keeps both; of the head only the packed one, beside the table of embeddings in 16 bit. The
    first steps pack some anew. Anonymous memory seen, in GiB: SmolLM2-135M 0.94 compiled and 1.15
    after steps in float32, 0.54 and 0.80 in bfloat16; a model of 12 layers, 512 and 3072 wide,
    0.49 and 0.64, 0.30 and 0.43. A graph of 16 products of 3072 x 3072: 8.05 bytes a weight from
    16 bit, 1.05 from 8-bit integers.
    """
    plain, integers = _weights(arch, resolved)
    table = arch.vocab_size * arch.hidden_size
    held = plain * element * _COPIES + integers + table * (2 + element)
    return held + _repacked_bytes(arch, resolved, element)


def _repacked_bytes(arch: Architecture, resolved: ResolvedQuantization, element: int) -> int:
    """Bytes that the first steps add.

    In float32 one of the MLP's three products is packed anew for steps of up to seven tokens, and
    once more for longer ones; in bfloat16 everything is, in the first step. Of integers it was not
    seen.
    """
    if element == 2:
        plain, _ = _weights(arch, resolved)
        return (plain + arch.vocab_size * arch.hidden_size) * element
    if f"model.layers.0.{_MLP}" in _integer_modules(resolved):
        return 0
    each = arch.num_layers * arch.hidden_size * arch.intermediate_size * element
    return _REPACKED * each


def _integer_modules(resolved: ResolvedQuantization) -> frozenset[str]:
    bits = _STORED_BITS.get(resolved.weights.name, _PLAIN_BITS)
    return frozenset() if bits == _PLAIN_BITS else frozenset(resolved.modules)


def _plain(arch: Architecture) -> ResolvedQuantization:
    return check(arch, Quantization(), runtime="openvino")


def _weights(arch: Architecture, resolved: ResolvedQuantization) -> tuple[int, int]:
    """Weights of the layers that are stored in 16 bit, and bytes of those stored as integers."""
    quantized = _integer_modules(resolved)
    bits = _STORED_BITS.get(resolved.weights.name, _PLAIN_BITS)
    plain = integers = 0
    for name, (inputs, outputs) in linear_widths(arch).items():
        if name == LM_HEAD:
            continue
        count = inputs * outputs
        if name not in quantized:
            plain += count
            continue
        scales = outputs * (-(-inputs // resolved.block_size) if resolved.block_size else 1)
        integers += count * bits // 8 + scales * _SCALE
    return plain, integers


def host_kv_bytes(arch: Architecture, resolved: ResolvedQuantization) -> float:
    """Bytes of KV cache that a token takes."""
    if resolved.kv_cache.name == "none":
        return arch.kv_bytes_per_token(2)
    heads = 2 * arch.num_layers * arch.num_kv_heads
    return heads * (arch.head_dim + _U8_SCALES)


def _refusal(plan: HostPlan, engine: Engine) -> UnsupportedError:
    if plan.pool <= 0:
        return UnsupportedError(
            f"the weights take {plan.used / _GIB:.1f} GiB, and {plan.available / _GIB:.1f} GiB "
            "are free on this machine",
            where="model.source",
            hint="free memory, quantize (quantization.weights: int4_awq), or use a smaller model",
            details=plan.lines(),
        )
    field = "engine.kv_cache.size" if engine.kv_cache.size else "engine.limits.max_seq_len"
    return UnsupportedError(
        f"the KV cache holds {plan.kv_tokens} tokens, but one request of max_seq_len takes "
        f"{plan.sequence_tokens}",
        where=field,
        hint=f"lower engine.limits.max_seq_len to {plan.kv_tokens}"
        if plan.kv_tokens > 1
        else "free memory, or use a smaller model",
        details=plan.lines(),
    )
