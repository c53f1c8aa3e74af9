"""What a deployment costs: an editable table of prices, and the price of a million tokens."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolkit.capacity.traffic import Traffic
from toolkit.errors import SpecError
from toolkit.spec.gpus import find_gpu

HOURS_PER_MONTH = 730
OWN = "prices.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GpuPrice(_Part):
    """Of one GPU and hour, and whose price it is."""

    usd_per_hour: float = Field(ge=0)
    source: str = ""
    date: str = ""


class Engineer(_Part):
    """The people who keep a deployment running."""

    usd_per_hour: float = Field(default=0, ge=0)
    hours_per_month: float = Field(default=0, ge=0)


class Managed(_Part):
    """What a provider takes for a million tokens of the same model."""

    name: str = "managed"
    usd_per_million_input: float = Field(ge=0)
    usd_per_million_output: float = Field(ge=0)


class Prices(_Part):
    """The table. ``utilisation`` is the mean load over the peak that the GPUs are paid for."""

    gpus: dict[str, GpuPrice]
    engineer: Engineer = Engineer()
    utilisation: float = Field(default=1.0, gt=0, le=1)
    managed: Managed | None = None

    def of(self, gpu: str) -> GpuPrice | None:
        """The price of the GPU with this name."""
        return self.gpus.get(gpu)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a deployment, in US dollars.

    Attributes:
        gpus: An hour of all GPUs.
        people: An hour's part of the engineers' month.
        million: A million tokens, prompts and answers, at the mean load.
        managed: The same tokens at the managed price, for a million; None without one.
    """

    gpus: float
    people: float
    million: float
    managed: float | None

    @property
    def hour(self) -> float:
        """Everything."""
        return self.gpus + self.people


def cost(prices: Prices, gpu: str, count: int, traffic: Traffic, rate: float) -> Cost:
    """What so many GPUs cost for a peak of ``rate`` requests a second.

    Raises:
        SpecError: the table has no price for the GPU.
    """
    price = prices.of(gpu)
    if price is None:
        raise SpecError(f"no price for {gpu}", where="--prices", hint=f"add it under gpus: {gpu}")
    gpus = count * price.usd_per_hour
    people = prices.engineer.usd_per_hour * prices.engineer.hours_per_month / HOURS_PER_MONTH
    size = traffic.prompt_tokens + traffic.output_tokens
    millions = rate * prices.utilisation * 3600 * size / 1e6
    return Cost(gpus, people, (gpus + people) / millions, managed_price(prices, traffic))


def managed_price(prices: Prices, traffic: Traffic) -> float | None:
    """What a million tokens in this proportion of prompts and answers cost at the managed price."""
    managed = prices.managed
    if managed is None:
        return None
    size = traffic.prompt_tokens + traffic.output_tokens
    of_prompts = managed.usd_per_million_input * traffic.prompt_tokens
    return (of_prompts + managed.usd_per_million_output * traffic.output_tokens) / size


def read_prices(path: Path | None = None) -> Prices:
    """The table of ``path``, or the one that comes along.

    Raises:
        SpecError: it cannot be read, or a figure cannot be a price.
    """
    import yaml

    where = str(path) if path else OWN
    try:
        text = (path or files(__package__) / OWN).read_text(encoding="utf-8")
        data = yaml.load(text, Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the prices cannot be read: {error}", where=where) from error
    except yaml.YAMLError as error:
        raise SpecError(f"the prices are no YAML: {error}", where=where) from error
    try:
        return Prices.model_validate(_named(data))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise SpecError(f"{field}: {first['msg']}", where=where) from error


def _named(data: Any) -> Any:
    """GPUs by the names of the table of GPUs, however they are spelled; null for no provider."""
    if not isinstance(data, dict) or not isinstance(data.get("gpus"), dict):
        return data
    gpus = {find_gpu(str(name)).name: price for name, price in data["gpus"].items()}
    managed = data.get("managed")
    none = managed in ("", "null", "~", None)
    return {**data, "gpus": gpus, "managed": None if none else managed}
