"""Who computes what in the next step: in-flight batching under a token budget.

Running requests get their next token first; what is left of ``max_num_tokens`` goes to prompts,
in chunks where that is allowed. A request joins when a slot and blocks are there:
``guaranteed_no_evict`` counts the blocks of its longest possible output, ``max_utilization``
only those of its prompt and preempts the youngest under pressure, ``static_batch`` waits until
the whole batch has ended.
"""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import dataclass, field

from .blocks import BlockPool, OutOfBlocksError
from .config import EngineConfig
from .sequence import Sequence


@dataclass(slots=True)
class Work:
    """``count`` tokens of ``sequence`` from position ``start``; drafts may come after them.

    ``room`` is how many drafts there are blocks for.
    """

    sequence: Sequence
    start: int
    count: int
    room: int = 0
    drafts: list[int] = field(default_factory=list)

    @property
    def completes(self) -> bool:
        """Whether logits for a new token come out of it."""
        return self.start + self.count == len(self.sequence.tokens)


class Scheduler:
    """Holds waiting and running sequences and plans each step. Not thread-safe."""

    def __init__(self, config: EngineConfig, pool: BlockPool) -> None:
        self.config = config
        self.pool = pool
        self.running: list[Sequence] = []
        self._waiting: list[tuple[int, int, Sequence]] = []
        self._order = itertools.count()
        self._resumed = itertools.count(-1, -1)
        self._someone_left = False
        self.preemptions = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence behind those of its priority."""
        heapq.heappush(self._waiting, (sequence.request.priority, next(self._order), sequence))

    def everything(self) -> list[Sequence]:
        """All sequences, running first."""
        return [*self.running, *(entry[2] for entry in self._waiting)]

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended, wherever it stands, and free its blocks."""
        self._release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
            self._someone_left = bool(self.running)
        else:
            self._waiting = [entry for entry in self._waiting if entry[2] is not sequence]
            heapq.heapify(self._waiting)

    def plan(self) -> list[Work]:
        """The next step: at most ``max_num_tokens`` tokens; empty when nothing can run.

        Prompts are completed in the order of ``running``, so those that generate stand before
        the others; who is preempted stands last, and is never in the plan already.
        """
        work: list[Work] = []
        generating = [s for s in self.running if s.generating]
        drafts = self._drafts_each(len(generating))
        for sequence in generating:
            self._generation(sequence, drafts, work)
        budget = self.config.max_num_tokens - sum(w.count + w.room for w in work)
        for sequence in [s for s in self.running if not s.generating]:
            budget -= self._prompt(sequence, budget, work)
        while budget > 0 and self._admit():
            budget -= self._prompt(self.running[-1], budget, work)
        return work

    def _drafts_each(self, generating: int) -> int:
        """Checking drafts is nearly free for a few requests and dear once the cores are busy."""
        most = self.config.speculation_max_concurrency
        return self.config.max_draft_len if most is None or generating <= most else 0

    def _generation(self, sequence: Sequence, drafts: int, work: list[Work]) -> None:
        length = len(sequence.tokens)
        if sequence not in self.running or not self._reserve(sequence, length):
            return
        # Drafts are a bet: they take free blocks, but nobody is preempted for them.
        spare = (len(sequence.table) + self.pool.free) * self.pool.tokens_per_block - length
        room = max(0, min(drafts, sequence.limit - length - 1, spare))
        self._reserve(sequence, length + room)
        work.append(Work(sequence, sequence.computed, 1, room))

    def _prompt(self, sequence: Sequence, budget: int, work: list[Work]) -> int:
        """Plan what ``budget`` tokens allow of a prompt; how many of them are gone then."""
        left = len(sequence.tokens) - sequence.computed
        if budget <= 0 or sequence not in self.running:
            return 0
        # What was preempted may have grown past any budget; that alone is always split.
        whole = not self.config.chunked_prefill and left <= self.config.max_num_tokens
        if whole and left > budget:
            # Later prompts would fit, but if they went first this one might never.
            return budget
        count = min(left, budget)
        if not self._reserve(sequence, sequence.computed + count):
            return 0
        work.append(Work(sequence, sequence.computed, count))
        return count

    def _admit(self) -> bool:
        """Move the first waiting sequence to the running ones, if it may join."""
        if not self._waiting or len(self.running) >= self.config.max_batch_size:
            return False
        # A static batch is complete once one of it has a token, or has left with its last.
        begun = self._someone_left or any(s.output_length for s in self.running)
        if self.config.policy == "static_batch" and begun:
            return False
        sequence = self._waiting[0][2]
        match = self.pool.match(sequence.tokens)
        reusable = self.pool.idle_among(match.blocks)
        needed = self.pool.blocks_for(self._reach(sequence)) - len(match.blocks)
        if needed + reusable + self._promised() > self.pool.free:
            return False
        heapq.heappop(self._waiting)
        self.pool.hold(match.blocks)
        self.pool.looked_up += self.pool.blocks_for(len(sequence.tokens))
        self.pool.reused += len(match.blocks)
        cached = len(match.blocks) * self.pool.tokens_per_block
        sequence.table = list(match.blocks)
        sequence.computed = cached
        sequence.drafted = self.pool.drafted_blocks(match.blocks) * self.pool.tokens_per_block
        sequence.remembered = len(match.blocks)
        sequence.prefix = match.prefix
        self._account(sequence, cached)
        self.running.append(sequence)
        return True

    def _account(self, sequence: Sequence, cached: int) -> None:
        usage = sequence.usage
        if not usage.first_scheduled:
            usage.first_scheduled = time.monotonic()
            usage.cached_tokens = cached
            usage.kv_blocks_reused = cached // self.pool.tokens_per_block
            usage.kv_blocks_total = self.pool.blocks_for(sequence.prompt_length)

    def _reach(self, sequence: Sequence) -> int:
        """Tokens whose blocks have to be there before the sequence may join."""
        if self.config.policy == "max_utilization":
            return len(sequence.tokens) + 1
        return sequence.limit

    def _promised(self) -> int:
        """Free blocks that running sequences were promised but do not hold yet."""
        if self.config.policy == "max_utilization":
            return 0
        return sum(self.pool.blocks_for(s.limit) - len(s.table) for s in self.running)

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Blocks for ``tokens`` tokens; preempts younger sequences, then gives up itself."""
        while len(sequence.table) < self.pool.blocks_for(tokens):
            try:
                sequence.table.append(self.pool.take())
            except OutOfBlocksError:
                victim = self.running[-1]
                self._preempt(victim)
                if victim is sequence:
                    return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.usage.preemptions += 1
        self.preemptions += 1
        entry = (sequence.request.priority, next(self._resumed), sequence)
        heapq.heappush(self._waiting, entry)

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.table)
        sequence.table = []
        sequence.computed = sequence.drafted = sequence.remembered = 0
        sequence.prefix = -1
