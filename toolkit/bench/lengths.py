"""How many tokens: fixed, or drawn from a distribution."""

from __future__ import annotations

import math
import random
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from toolkit.spec.section import Looks, Section, refuse

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Fixed(Section):
    """Always the same."""

    distribution: Literal["fixed"] = "fixed"
    tokens: Count

    @property
    def least(self) -> int:
        """No draw is below."""
        return self.tokens

    def draw(self, dice: random.Random) -> int:
        """The length."""
        return self.tokens


class _Bounded(Section):
    min: Count = Field(default=1, description="No draw is below.")
    max: Count = Field(default=1_000_000, description="No draw is above.")

    @model_validator(mode="after")
    def _ordered(self) -> _Bounded:
        if self.min > self.max:
            raise refuse(
                f"min ({self.min}) is above max ({self.max})",
                fields=("min", "max"),
                hint="swap them",
            )
        return self

    @property
    def least(self) -> int:
        """No draw is below."""
        return self.min

    def _clip(self, value: float) -> int:
        return max(self.min, min(self.max, round(value)))


class Normal(_Bounded):
    """Normally distributed, cut at ``min`` and ``max``."""

    distribution: Literal["normal"]
    mean: float = Field(gt=0)
    std: float = Field(ge=0)

    def draw(self, dice: random.Random) -> int:
        """One length."""
        return self._clip(dice.gauss(self.mean, self.std))


class LogNormal(_Bounded):
    """Log-normally distributed: many short, few long, as real prompts and answers are.

    ``sigma`` is the standard deviation of the logarithm: 1 puts two thirds between the median
    divided by 2.7 and the median times 2.7.
    """

    distribution: Literal["lognormal"]
    median: float = Field(gt=0)
    sigma: float = Field(ge=0, le=4)

    def draw(self, dice: random.Random) -> int:
        """One length."""
        return self._clip(dice.lognormvariate(math.log(self.median), self.sigma))


class Uniform(Section):
    """Every length from ``low`` to ``high``, both included, equally often."""

    distribution: Literal["uniform"]
    low: Count
    high: Count

    @property
    def least(self) -> int:
        """No draw is below."""
        return self.low

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low > self.high:
            raise refuse(
                f"low ({self.low}) is above high ({self.high})",
                fields=("low", "high"),
                hint="swap them",
            )
        return self

    def draw(self, dice: random.Random) -> int:
        """One length."""
        return dice.randint(self.low, self.high)


def _short(value: Any) -> Any:
    """A plain number is short for a fixed length."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"distribution": "fixed", "tokens": value}
    return value


Length = Annotated[
    Fixed | Normal | LogNormal | Uniform,
    Field(discriminator="distribution"),
    BeforeValidator(_short),
    Looks("a number of tokens, or {distribution: normal, lognormal or uniform, ...}"),
]
"""Tokens: a number, or ``{distribution: normal | lognormal | uniform, ...}``."""
