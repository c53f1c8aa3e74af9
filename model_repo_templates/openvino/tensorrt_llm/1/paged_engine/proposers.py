"""Draft tokens: guesses that the target checks several of in one step.

The target samples every position itself and keeps a draft only where it equals its own token,
so the output is what it would be without drafts.
"""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from typing import Protocol

from .runner import Row, Runner
from .scheduler import Work
from .sequence import Sequence


class Proposer(Protocol):
    """Fills the drafts of a step's work."""

    def propose(self, work: Ordered[Work]) -> None:
        """Give every generating work up to ``room`` drafts."""

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""


class NoProposer:
    """Plain decoding."""

    def propose(self, work: Ordered[Work]) -> None: ...

    def forget(self, sequence: Sequence) -> None: ...


class NGramProposer:
    """What followed the latest earlier occurrence of the newest n-gram, longest n first."""

    def __init__(self, max_ngram: int) -> None:
        self._max_ngram = max_ngram
        self._indexes: dict[int, _NGramIndex] = {}

    def propose(self, work: Ordered[Work]) -> None:
        for item in work:
            if item.room and item.completes:
                sequence = item.sequence
                index = self._indexes.setdefault(
                    sequence.request.request_id, _NGramIndex(self._max_ngram)
                )
                item.drafts = index.after(sequence.tokens, item.room)

    def forget(self, sequence: Sequence) -> None:
        self._indexes.pop(sequence.request.request_id, None)


class _NGramIndex:
    """Where each n-gram of one sequence ended last, kept up as the sequence grows."""

    def __init__(self, max_ngram: int) -> None:
        self._ends: list[dict[tuple[int, ...], int]] = [{} for _ in range(max_ngram)]
        self._indexed = 0

    def after(self, tokens: list[int], count: int) -> list[int]:
        """Up to ``count`` tokens that followed the newest n-gram before."""
        newest = len(tokens)
        for end in range(self._indexed + 1, newest):
            for size, ends in enumerate(self._ends, 1):
                if end >= size:
                    ends[tuple(tokens[end - size : end])] = end
        self._indexed = max(self._indexed, newest - 1)
        for size in range(min(len(self._ends), newest), 0, -1):
            found = self._ends[size - 1].get(tuple(tokens[newest - size :]))
            if found is not None:
                return tokens[found : found + count]
        return []


class DraftModelProposer:
    """A smaller model with a KV pool of its own, addressed by the target's block tables."""

    def __init__(self, runner: Runner, tokens_per_block: int) -> None:
        self._runner = runner
        self._tokens_per_block = tokens_per_block

    def propose(self, work: Ordered[Work]) -> None:
        self._follow_prompts([item for item in work if not item.sequence.generating])
        asking = [item for item in work if item.room]
        behind = [item.sequence.tokens[item.sequence.drafted :] for item in asking]
        while asking:
            rows = [self._row(w, t) for w, t in zip(asking, behind, strict=True)]
            best = self._runner.run(rows).argmax(axis=-1).tolist()
            for item, row, token in zip(asking, rows, best, strict=True):
                item.sequence.drafted = row.past + len(row.tokens)
                item.drafts.append(token)
            asking = [item for item in asking if len(item.drafts) < item.room]
            behind = [item.drafts[-1:] for item in asking]

    def forget(self, sequence: Sequence) -> None: ...

    def _follow_prompts(self, prompts: Ordered[Work]) -> None:
        """Compute what the target computes, so that the draft can start where it ends."""
        rows = []
        for item in prompts:
            sequence = item.sequence
            end = item.start + item.count
            if sequence.drafted < end:
                tokens = sequence.tokens[sequence.drafted : end]
                rows.append(self._row(item, tokens))
                sequence.drafted = end
        if rows:
            self._runner.run(rows)

    def _row(self, item: Work, tokens: list[int]) -> Row:
        past = item.sequence.drafted
        blocks = -(-(past + len(tokens)) // self._tokens_per_block)
        return Row(tokens, past, item.sequence.table[:blocks], 1)
