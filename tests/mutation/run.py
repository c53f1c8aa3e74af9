"""Change the release tables, contracts and templates; say which changes no test notices.

``python -m tests.mutation.run --count 120 --seed 1`` from the repository's root. It works in a
copy, takes some seconds a mutant, and ends with 1 if one survives that should not.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import trials  # noqa: E402
from mutants import draw  # noqa: E402


def main(words: list[str] | None = None) -> int:
    """Draw, try, report."""
    asked = _arguments().parse_args(words)
    # A shell's background job ignores it, and so would the tests that wait to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with trials.copied(ROOT, asked.commit) as copy:
        drawn = draw(copy, asked.count, asked.seed, asked.group or ())
        if asked.list:
            _say(*map(str, drawn))
            return 0
        groups = {mutant.group for mutant in drawn}
        asking = {g: trials.stages(g, asked.without)[: asked.stages] for g in groups}
        useless = _fail_anyway(copy, {paths for order in asking.values() for paths in order})
        found = []
        for number, mutant in enumerate(drawn, 1):
            order = [(*paths, *useless) for paths in asking[mutant.group]]
            trial = trials.attempt(copy, mutant, order)
            found.append(trial)
            _say(f"{number}/{len(drawn)} {trial.outcome} {trial.seconds} s {mutant} [{trial.by}]")
            if asked.report:
                with asked.report.open("a", encoding="utf-8") as out:
                    out.write(trial.record() + "\n")
    _summarise(found)
    return int(any(trial.outcome == "survived" for trial in found))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=120, help="mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--group", action="append", help="only these: templates, formats ...")
    parser.add_argument("--commit", help="of this commit, not of the files as they lie here")
    parser.add_argument("--without", action="append", default=[], help="test file to leave out")
    parser.add_argument("--stages", type=int, help="ask only so many sets of tests, nearest first")
    parser.add_argument("--report", type=Path, help="append a line of JSON for each mutant")
    parser.add_argument("--list", action="store_true", help="say what would be tried")
    return parser


def _fail_anyway(copy: Path, asking: set[tuple[str, ...]]) -> list[str]:
    """Words that leave tests out which fail without a mutant: they would seem to notice all."""
    useless: list[str] = []
    for paths in sorted(asking):
        failed = trials.failing(copy, paths)
        _say(*(f"fails without a mutant, left out: {name}" for name in failed))
        useless += [f"--deselect={name}" for name in failed]
    return useless


def _summarise(found: list[trials.Trial]) -> None:
    groups = sorted({trial.mutant.group for trial in found})
    for group in groups:
        counted = Counter(trial.outcome for trial in found if trial.mutant.group == group)
        _say(f"{group:14} {dict(counted)}")
    _say(f"{'all':14} {dict(Counter(trial.outcome for trial in found))}")
    _say(*(f"SURVIVED {trial.mutant}" for trial in found if trial.outcome == "survived"))
    _say(*(f"equivalent {trial.mutant}" for trial in found if trial.outcome == "equivalent"))


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
