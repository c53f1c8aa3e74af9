"""One iteration: plan, propose, run, sample, keep what was confirmed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from llm_serving.engine_api import TokenChunk

from .proposers import DraftModelProposer, Proposer
from .runner import Logits, Row, Runner
from .sampler import choose, fresh_seed, is_plain_greedy, log_probability
from .scheduler import Scheduler, Work
from .sequence import Sequence


@dataclass
class StepCounts:
    """What the last step worked on, and totals since the start."""

    context_requests: int = 0
    context_tokens: int = 0
    generation_requests: int = 0
    iterations: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0


class Stepper:
    """Runs iterations over a scheduler's sequences."""

    def __init__(
        self, scheduler: Scheduler, runner: Runner, proposer: Proposer, stream_interval: int
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._proposer = proposer
        self._stream_interval = stream_interval
        self._draft_model = isinstance(proposer, DraftModelProposer)
        self._seeds: dict[int, int] = {}
        self.counts = StepCounts()

    def step(self) -> list[TokenChunk]:
        """Compute the next tokens of all that can run; the chunks to stream."""
        work = self._scheduler.plan()
        if not work:
            return []
        self._proposer.propose(work)
        logits = self._runner.run([self._row(item) for item in work])
        self._count(work)
        best = logits.argmax(axis=-1)
        chunks: list[TokenChunk] = []
        row = 0
        for item in work:
            if item.completes:
                end = row + 1 + len(item.drafts)
                self._confirm(item, logits[row:end], best[row:end].tolist())
                row = end
            else:
                item.sequence.computed += item.count
            self._remember(item.sequence)
            chunk = self.flush(item.sequence)
            if chunk:
                chunks.append(chunk)
        return chunks

    def end(self, sequence: Sequence) -> TokenChunk:
        """Take a sequence out, whatever state it is in; its last chunk."""
        self._scheduler.remove(sequence)
        self._proposer.forget(sequence)
        self._seeds.pop(sequence.request.request_id, None)
        sequence.usage.output_tokens = sequence.output_length
        chunk = self._chunk(sequence)
        chunk.finish, chunk.usage, chunk.error = sequence.finish, sequence.usage, sequence.error
        return chunk

    def flush(self, sequence: Sequence) -> TokenChunk | None:
        """The sequence's chunk, if it has ended or enough tokens have gathered."""
        if sequence.finish:
            return self.end(sequence)
        due = self._stream_interval if sequence.sent_any else 1
        return self._chunk(sequence) if len(sequence.unsent) >= due else None

    def _chunk(self, sequence: Sequence) -> TokenChunk:
        chunk = TokenChunk(sequence.request.request_id, sequence.unsent, sequence.unsent_log_probs)
        sequence.unsent, sequence.unsent_log_probs, sequence.sent_any = [], [], True
        return chunk

    def _row(self, item: Work) -> Row:
        tokens = item.sequence.tokens[item.start : item.start + item.count] + item.drafts
        blocks = self._scheduler.pool.blocks_for(item.start + len(tokens))
        wanted = 1 + len(item.drafts) if item.completes else 0
        return Row(tokens, item.start, item.sequence.table[:blocks], wanted)

    def _confirm(self, item: Work, logits: Logits, best: list[int]) -> None:
        """Sample after the newest token, then after each draft that turns out right."""
        sequence = item.sequence
        sequence.computed = len(sequence.tokens)
        now = time.monotonic()
        usage = sequence.usage
        usage.first_token = usage.first_token or now
        usage.last_token = now
        usage.draft_tokens += len(item.drafts)
        for index in range(1 + len(item.drafts)):
            token = self._sample(sequence, logits[index], best[index])
            accepted = index < len(item.drafts) and item.drafts[index] == token
            self._append(sequence, token, logits[index])
            if accepted:
                sequence.computed += 1
                usage.accepted_draft_tokens += 1
                self.counts.accepted_draft_tokens += 1
            if sequence.finish or not accepted:
                break
        sequence.drafted = min(sequence.drafted, len(sequence.tokens) - 1)

    def _sample(self, sequence: Sequence, logits: Any, best: int) -> int:
        sampling = sequence.request.sampling
        if is_plain_greedy(sampling, sequence.output_length, best):
            return best
        identity = sequence.request.request_id
        if identity not in self._seeds:
            self._seeds[identity] = fresh_seed() if sampling.seed is None else sampling.seed
        prompt = sequence.request.prompt
        output = sequence.tokens[len(prompt) :]
        return choose(logits, sampling, prompt, output, self._seeds[identity])

    def _append(self, sequence: Sequence, token: int, logits: Any) -> None:
        sampling = sequence.request.sampling
        if token in sampling.stop_token_ids:
            sequence.finish = "stop"
            return
        sequence.tokens.append(token)
        sequence.unsent.append(token)
        if sampling.log_probs:
            sequence.unsent_log_probs.append(log_probability(logits, token))
        if len(sequence.tokens) >= sequence.limit:
            sequence.finish = "length"

    def _remember(self, sequence: Sequence) -> None:
        """Make full blocks findable, and say which of them the draft has filled too."""
        pool = self._scheduler.pool
        if not pool.reuse:
            return
        filled = min(sequence.computed, len(sequence.tokens))
        size = pool.tokens_per_block
        while (sequence.remembered + 1) * size <= filled:
            start = sequence.remembered * size
            block = sequence.table[sequence.remembered]
            sequence.prefix = pool.remember(
                block, sequence.prefix, sequence.tokens[start : start + size]
            )
            sequence.remembered += 1
        if self._draft_model:
            for block in sequence.table[: min(filled, sequence.drafted) // size]:
                pool.mark_drafted(block)

    def _count(self, work: list[Work]) -> None:
        counts = self.counts
        prompts = [item for item in work if not item.sequence.generating]
        counts.iterations += 1
        counts.context_requests = len(prompts)
        counts.context_tokens = sum(item.count for item in prompts)
        counts.generation_requests = len(work) - len(prompts)
        counts.draft_tokens += sum(len(item.drafts) for item in work)
