"""From a scenario and a place to a report."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.progress import PlainLines
from toolkit.errors import SpecError
from toolkit.progress import Silent

if TYPE_CHECKING:
    from toolkit.bench.report import BenchReport
    from toolkit.bench.scenario import Scenario
    from toolkit.bench.workload import Workload
    from toolkit.cli.bench.place import Place


def measure(
    place: Place,
    scenario: Scenario,
    title: str,
    *,
    tokenizer: Path | None,
    timeout: float,
    quiet: bool,
) -> BenchReport:
    """Measure the scenario's loads at ``place``, or search for a rate if that is its load."""
    from toolkit.bench.chat import chat_format
    from toolkit.bench.endpoint import target_at
    from toolkit.bench.records import Sampling
    from toolkit.bench.runner import Options, run
    from toolkit.bench.sweep import find_rate
    from toolkit.bench.sweep_search import RateSearch
    from toolkit.bench.vocabulary import Tokens, Words
    from toolkit.bench.workers import processes_of
    from toolkit.bench.workload import Material

    tokenizer = tokenizer or place.tokenizer
    target = target_at(place.url, place.model, place.protocol, timeout=timeout)
    workload = within_limits(scenario.workload, place)
    options = Options(
        stop=scenario.stop,
        repeats=scenario.repeats,
        seed=secrets.randbelow(2**31) if scenario.seed is None else scenario.seed,
        objectives={"": scenario.slo} if scenario.slo else place.objectives or {},
        sampling=Sampling(**scenario.sampling.model_dump()),
        material=Material(Tokens(tokenizer) if tokenizer else Words(), chat_format(tokenizer)),
        title=title,
        processes=processes_of(scenario),
    )
    # Plain lines, no bars: a bar is redrawn ten times a second by the process that measures.
    progress = Silent() if quiet else PlainLines(sys.stderr)
    if isinstance(scenario.load, RateSearch):
        return find_rate(target, workload, scenario.load, options, progress=progress)
    return run(target, workload, scenario.load.loads, options, progress=progress)


def within_limits(workload: Workload, place: Place) -> Workload:
    """A trace held to what the deployment takes, unless it says itself how long it may be."""
    from toolkit.bench.workload import TraceFile

    if not isinstance(workload, TraceFile) or place.max_input_len is None:
        return workload
    prompt = workload.max_prompt_tokens or place.max_input_len
    total = workload.max_total_tokens or place.max_seq_len
    return workload.model_copy(update={"max_prompt_tokens": prompt, "max_total_tokens": total})


def check_lengths(scenario: Scenario, most: int | None) -> None:
    """Refuse prompts that are all too long: every request would be refused, one by one.

    Raises:
        SpecError: no prompt can fit.
    """
    lengths = getattr(scenario.workload, "prompt_tokens", None)
    if most is not None and lengths is not None and lengths.least > most:
        raise SpecError(
            f"no prompt of {lengths.least} tokens fits engine.limits.max_input_len ({most})",
            where="--prompt-tokens",
            hint=f"measure with {most} or fewer",
        )
