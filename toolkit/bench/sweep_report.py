"""What a search for the highest rate found, as part of the report."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from toolkit.bench.sweep_search import Bound, RateSearch, Verdict


class Probe(BaseModel):
    """One window of the search."""

    model_config = ConfigDict(frozen=True)

    rate: float = Field(description="Sessions started a second.")
    label: str = Field(description="The point of the report that holds it.")
    window_s: float
    good: int = Field(description="Requests within the SLO.")
    judged: int = Field(description="Requests that have targets.")
    goodput: float = Field(description="Requests within the SLO a second.")
    client_saturated: bool
    partial: bool = Field(default=False, description="Interrupted; does not count.")

    @property
    def share(self) -> float:
        """Good among the judged."""
        return self.good / self.judged if self.judged else 0.0


class FoundRate(BaseModel):
    """The result: the highest rate that met the SLO, and all that was tried."""

    model_config = ConfigDict(frozen=True)

    search: RateSearch
    rate: float | None = Field(description="Highest rate that met it; None if none did.")
    above: float | None = Field(description="Lowest rate tried that did not meet it.")
    bound: Bound = Field(
        description="What keeps it from being higher: server (the SLO was missed above), client "
        "(it was saturated above), limit (of the search), floor (no rate met it), probes (none "
        "left), workload (it has too few requests), interrupted."
    )
    verdicts: dict[str, Verdict] = Field(description="By the label of the point.")
    probes: tuple[Probe, ...] = Field(description="In the order in which they ran.")

    @property
    def sentence(self) -> str:
        """The result in words."""
        share = f"{self.search.share:.4g}".removesuffix(".0")
        within = f"{float(share):.1%} of the requests within the SLO"
        if self.rate is None:
            if self.bound == "floor":
                return f"no rate keeps {within}: at {self.above:g} a second they were served alone"
            return f"no rate that keeps {within} was found"
        found = f"{self.rate:g} sessions a second keep {within}"
        return f"{found}; {self._why()}"

    def _why(self) -> str:
        above = "" if self.above is None else f"{self.above:g}"
        return {
            "server": f"{above} do not",
            "client": f"above, the client was saturated (tried {above}): try more --processes",
            "limit": "no higher rate was tried",
            "floor": "",
            "probes": f"the search ended early; {above or 'no rate'} is known to be too much",
            "workload": "for a higher rate, the workload has too few requests",
            "interrupted": f"interrupted; {above or 'no rate'} is known to be too much",
        }[self.bound]
