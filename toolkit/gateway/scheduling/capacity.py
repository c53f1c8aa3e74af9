"""What a model's replicas can do, all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.gateway.scheduling.replica import Replica


@dataclass(frozen=True, slots=True)
class Capacity:
    """One moment's figures.

    ``speed`` in engine-seconds a second; ``ends_per_s`` requests end in a second when all are
    full; ``start_s`` passes from sending a short prompt to its first token, each prompt token adds
    ``prompt_s``; ``gap_s`` between two tokens of an answer. ``known``: the speed was measured.
    """

    slots: int = 0
    speed: float = 0.0
    ends_per_s: float = 0.0
    start_s: float = 0.0
    prompt_s: float = 0.0
    gap_s: float = 0.0
    known: bool = False

    @classmethod
    def of(cls, replicas: Sequence[Replica]) -> Capacity:
        """Sums of rates, means of times."""
        paces = [replica.pace for replica in replicas]
        starts = [pace.start_s for pace in paces if pace.start_s.samples]
        gaps = [pace.token_gap_s.value for pace in paces if pace.token_gap_s.count]
        return cls(
            slots=sum(replica.spec.slots for replica in replicas),
            speed=sum(pace.speed_now() for pace in paces),
            ends_per_s=sum(pace.ends_per_s.value for pace in paces),
            start_s=sum(line.base for line in starts) / len(starts) if starts else 0.0,
            prompt_s=sum(line.slope for line in starts) / len(starts) if starts else 0.0,
            gap_s=sum(gaps) / len(gaps) if gaps else 0.0,
            known=any(pace.speed.count for pace in paces),
        )

    def stay_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Seconds from sending a request to its last token."""
        return self.start_s + self.prompt_s * prompt_tokens + self.gap_s * output_tokens
