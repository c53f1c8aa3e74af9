"""The engine's KV cache, in blocks: what is in use, and what is kept for reuse."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from toolkit.gateway.scheduling.prefixes import BLOCK


def blocks_for(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // BLOCK)


@dataclass(slots=True)
class Lease:
    """A running request's blocks: named ones, and its own, of which ``filled`` hold tokens."""

    names: tuple[int, ...]
    own: int
    filled: int = 0


class BlockCache:
    """Blocks with a name are shared and outlive their request until the room is needed.

    A request is admitted only when its longest answer fits, as in engines that never evict; the
    blocks that it was promised and has not filled yet serve as cache meanwhile.
    """

    def __init__(self, kv_tokens: int, *, reuse: bool) -> None:
        self._size = kv_tokens // BLOCK if kv_tokens else 1 << 40
        self._reuse = reuse
        self._used: Counter[int] = Counter()
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._own = 0
        self._filled = 0

    @property
    def use(self) -> float:
        """Share of the blocks that requests hold or were promised."""
        return (len(self._used) + self._own) / self._size

    def admit(self, prefix: tuple[int, ...], prompt_tokens: int, longest: int) -> Lease | None:
        """A lease for a request of at most ``longest`` tokens; None while it does not fit."""
        names = self._matched(prefix[: (prompt_tokens - 1) // BLOCK])
        own = blocks_for(longest) - len(names)
        revived = sum(1 for name in names if name not in self._used)
        if len(self._used) + revived + self._own + own > self._size:
            return None
        self._hold(names)
        self._own += own
        lease = Lease(names, own)
        self.fill(lease, prompt_tokens)
        return lease

    def fill(self, lease: Lease, tokens: int) -> None:
        """The request has so many tokens in the cache now."""
        filled = min(lease.own, blocks_for(tokens) - len(lease.names))
        self._filled += filled - lease.filled
        lease.filled = filled
        self._shrink()

    def publish(self, lease: Lease, prefix: tuple[int, ...]) -> None:
        """Its prompt is computed: others may share the blocks that nobody had before."""
        if not self._reuse:
            return
        fresh = []
        for name in prefix[len(lease.names) :]:
            if name in self._used or name in self._idle:
                break
            fresh.append(name)
        self._hold(tuple(fresh))
        lease.names += tuple(fresh)
        lease.own -= len(fresh)
        lease.filled -= len(fresh)
        self._own -= len(fresh)
        self._filled -= len(fresh)

    def release(self, lease: Lease, kept: tuple[int, ...]) -> None:
        """The request has ended; its blocks stay under these names while there is room."""
        self._own -= lease.own
        self._filled -= lease.filled
        for name in lease.names:
            self._used[name] -= 1
            if not self._used[name]:
                del self._used[name]
        # From the end to the beginning: a chain loses its end first.
        for name in reversed(kept) if self._reuse else ():
            if name not in self._used:
                self._idle[name] = None
                self._idle.move_to_end(name)
        self._shrink()

    def _matched(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        found = 0
        for name in prefix if self._reuse else ():
            if name not in self._used and name not in self._idle:
                break
            found += 1
        return prefix[:found]

    def _hold(self, names: tuple[int, ...]) -> None:
        for name in names:
            self._used[name] += 1
            self._idle.pop(name, None)

    def _shrink(self) -> None:
        while self._idle and len(self._used) + self._filled + len(self._idle) > self._size:
            self._idle.popitem(last=False)
