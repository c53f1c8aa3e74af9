"""Prove that a running server, and what it runs from, does what the deployment promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.progress import Progress
from toolkit.serving.ports import Endpoints
from toolkit.serving.validate import answers, engine, static
from toolkit.serving.validate.check import Check, Context, Reference, Result, perform
from toolkit.serving.validate.client import Client
from toolkit.serving.validate.report import ValidationReport, junit_xml, write_junit
from toolkit.spec.models import Deployment

CHECKS: tuple[Check, ...] = (*static.CHECKS, *answers.CHECKS, *engine.CHECKS)
QUICK = frozenset(
    {
        "readiness",
        "tensor contract",
        "golden prompts",
        "greedy agreement",
        "streaming",
        "metrics",
    }
)
"""What ``deploy`` checks before it says that a server is up."""

__all__ = [
    "CHECKS",
    "QUICK",
    "Check",
    "Reference",
    "Result",
    "ValidationReport",
    "junit_xml",
    "validate_live",
    "write_junit",
]


def validate_live(
    endpoints: Endpoints,
    deployment: Deployment,
    *,
    progress: Progress,
    only: frozenset[str] | None = None,
    references: Sequence[Reference] = (),
    tokenize: Callable[[str], Sequence[int]] | None = None,
    minimum_agreement: float = 1.0,
    numeric_share: float = 0.0,
    repository: Path | None = None,
    timeout: float = 120.0,
) -> ValidationReport:
    """Run the checks, in order, against the server at ``endpoints``.

    Args:
        endpoints: Where it listens (:attr:`RunningServer.endpoints`).
        deployment: What it was deployed as; features that are off are skipped.
        progress: One step per check.
        only: Names of the checks to run; all when None.
        references: Greedy outputs of the checkpoint, for the agreement check.
        tokenize: Text to tokens, as the checkpoint's tokenizer does without special tokens.
        minimum_agreement: Share of reference tokens that have to be equal (0 to 1).
        numeric_share: Share of prompts that a batch may change by rounding (0 on CPU).
        repository: What the server was started from, to check it too.
        timeout: Seconds that one request may take.
    """
    context = Context(
        deployment,
        Client(endpoints, deployment.name, timeout),
        tuple(references),
        tokenize,
        minimum_agreement,
        numeric_share,
        repository,
    )
    chosen = [check for check in CHECKS if only is None or check.name in only]
    results: list[Result] = []
    progress.start(f"validating {deployment.name}", len(chosen), "checks")
    for check in chosen:
        result = perform(check, context)
        results.append(result)
        progress.advance()
        if check.name == "readiness" and result.outcome == "failed":
            break  # nothing else could succeed, and each would wait for its timeout
    failed = sum(result.outcome == "failed" for result in results)
    progress.finish(f"{failed} failed" if failed else "passed")
    return ValidationReport(deployment.name, endpoints.http_url, tuple(results))
