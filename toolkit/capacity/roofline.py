"""How long a step of continuous batching takes: bytes over bandwidth against operations over rate.

The roofline model (Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009), once for the matrix
products and once for attention, for each is bound on its own by memory or by arithmetic, plus what
a step costs beside. A dense decoder computes two operations a weight and token, and four for each
pair of a query and a key in each channel of attention. Of a mixture of experts, a token computes
with the experts that are chosen for it, and a step reads those that any of its tokens chose.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.capacity.efficiency import Efficiency


@dataclass(frozen=True, slots=True)
class Device:
    """A processor's figures, of the data sheet or measured.

    Attributes:
        bandwidth: Bytes a second from its memory.
        linear_rate: Operations a second of the layers' matrix products.
        attention_rate: Of attention and of what is not quantized.
        link: Bytes a second to each of the other processors, one direction.
    """

    name: str
    bandwidth: float
    linear_rate: float
    attention_rate: float
    link: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """What one device of a replica moves and computes.

    Attributes:
        layers: Layers that it passes through in a step.
        weight_bytes: Read once a step, the head included; of a mixture without the experts that
            a router chooses.
        token_ops: Of the layers' matrix products, for a token.
        row_ops: Of the head, for a token whose successor is wanted.
        kv_bytes: Read for each token in a context, for one query.
        pair_ops: Of attention, for a query and a token in its context.
        reduced_bytes: Sent over the link for a token.
        collectives: Collective operations of a step.
        experts: Experts that a router chooses from; 0 for a dense model.
        chosen: Of them, those of one token.
        expert_bytes: Of one expert in all layers.
    """

    layers: int
    weight_bytes: float
    token_ops: float
    row_ops: float
    kv_bytes: float
    pair_ops: float
    reduced_bytes: float = 0.0
    collectives: int = 0
    experts: int = 0
    chosen: int = 0
    expert_bytes: float = 0.0

    def read_bytes(self, tokens: float) -> float:
        """Weights that a step of so many tokens reads."""
        return self.weight_bytes + self.expert_bytes * distinct(self.experts, self.chosen, tokens)


def distinct(experts: int, chosen: int, tokens: float) -> float:
    """Experts of a layer that at least one of ``tokens`` passes through, on average.

    ``E (1 - (1 - k/E)^n)``: each token misses an expert with probability 1 - k/E. That takes the
    router to spread its tokens evenly, as its training makes it (load-balancing loss of Shazeer et
    al., Outrageously Large Neural Networks, ICLR 2017, and of Fedus, Zoph, Shazeer: Switch
    Transformers, JMLR 23, 2022); where it does not, fewer are read.
    """
    return float(experts * (1 - (1 - chosen / experts) ** tokens)) if experts else 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What a step holds; halves are averages.

    Attributes:
        decodes: Requests that get their next token.
        context: Tokens in the context of each of them.
        prompt_tokens: Tokens of prompts that are computed in the step.
        prompt_pairs: Pairs of a query and a key in them; a prompt of n has n(n+1)/2.
        prompt_rows: Prompts that end in the step.
        queries: Tokens computed for each decoding request; more than one with drafts.
    """

    decodes: float = 0.0
    context: float = 0.0
    prompt_tokens: float = 0.0
    prompt_pairs: float = 0.0
    prompt_rows: float = 0.0
    queries: float = 1.0


def step_seconds(work: Work, device: Device, factors: Efficiency, step: Step) -> float:
    """Seconds of one step."""
    bandwidth = device.bandwidth * factors.bandwidth
    linear = device.linear_rate * factors.compute
    plain = device.attention_rate * factors.compute
    rows = step.decodes * step.queries
    tokens = rows + step.prompt_tokens
    products = max(
        work.read_bytes(tokens) / bandwidth,
        work.token_ops * tokens / linear + work.row_ops * (rows + step.prompt_rows) / plain,
    )
    read = work.kv_bytes * step.decodes * step.context / bandwidth
    attention = max(read, work.pair_ops * rows * step.context / plain)
    attention += work.pair_ops * step.prompt_pairs / plain
    seconds = factors.step_s + factors.layer_s * work.layers + products + attention
    seconds += factors.row_s * (step.decodes + step.prompt_rows)
    if work.collectives:
        seconds += factors.collective_s * work.collectives
        seconds += work.reduced_bytes * tokens / (device.link * factors.link)
    return seconds


@dataclass(frozen=True, slots=True)
class Balance:
    """What a step moves and computes on one device, and what that takes at the factors' rates.

    Attributes:
        weight_bytes: Of weights that are read.
        kv_bytes: Of keys and values that are read.
        operations: Of all matrix products and attention.
        memory_s: Seconds to read both.
        compute_s: Seconds to compute.
    """

    weight_bytes: float
    kv_bytes: float
    operations: float
    memory_s: float
    compute_s: float

    @property
    def bound(self) -> str:
        """What takes longer: ``memory`` or ``compute``."""
        return "memory" if self.memory_s >= self.compute_s else "compute"


def balance(work: Work, device: Device, factors: Efficiency, step: Step) -> Balance:
    """The two sides of the roofline for a step."""
    rows = step.decodes * step.queries
    layers = work.token_ops * (rows + step.prompt_tokens)
    pairs = rows * step.context + step.prompt_pairs
    plain = work.row_ops * (rows + step.prompt_rows) + work.pair_ops * pairs
    weights = work.read_bytes(rows + step.prompt_tokens)
    cache = work.kv_bytes * step.decodes * step.context
    compute = layers / device.linear_rate + plain / device.attention_rate
    return Balance(
        weights,
        cache,
        layers + plain,
        (weights + cache) / (device.bandwidth * factors.bandwidth),
        compute / factors.compute,
    )


def prompt_step(
    tokens: float, *, cached: float = 0.0, decodes: float = 0, context: float = 0
) -> Step:
    """A whole prompt in one step, ``cached`` of its tokens found in the cache."""
    new = max(tokens - cached, 1.0)
    pairs = new * cached + new * (new + 1) / 2
    return Step(decodes, context, prompt_tokens=new, prompt_pairs=pairs, prompt_rows=1)
