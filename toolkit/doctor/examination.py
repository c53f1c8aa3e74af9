"""Run the checks that matter and say what can be served."""

from __future__ import annotations

from pathlib import Path

from toolkit.doctor.check import Check, Context, Finding, Report
from toolkit.doctor.checks_container import CONTAINER_CHECKS
from toolkit.doctor.checks_gpu import GPU_CHECKS
from toolkit.doctor.checks_software import SOFTWARE_CHECKS
from toolkit.doctor.checks_system import SYSTEM_CHECKS
from toolkit.doctor.machine import Machine
from toolkit.doctor.need import need_of
from toolkit.spec.models import Deployment
from toolkit.workspace import default_root

CHECKS: tuple[Check, ...] = (*GPU_CHECKS, *CONTAINER_CHECKS, *SOFTWARE_CHECKS, *SYSTEM_CHECKS)


def examine(
    deployment: Deployment | None = None,
    *,
    workspace: Path | None = None,
    machine: Machine | None = None,
) -> Report:
    """Look at this machine.

    Args:
        deployment: Check only what it needs, and call that ``fail`` which it cannot do without;
            without one every check runs, and what is missing for GPUs is a warning.
        workspace: Where its artifacts would be kept.
        machine: Answers in place of this machine (tests).

    Raises:
        SpecError: the deployment's release is not known.
    """
    need = need_of(deployment) if deployment else None
    context = Context(machine or Machine(), need, workspace or default_root())
    wanted = [check for check in CHECKS if need is None or check.needed(need)]
    return Report(
        findings=tuple(_finding(check, context) for check in wanted),
        reading=context.reading,
        deployment=deployment.name if deployment else None,
        can_serve=_runtimes(context),
    )


def _finding(check: Check, context: Context) -> Finding:
    result = check.run(context)
    return Finding(check.name, check.proves, result.status, result.detail, result.mend)


def _runtimes(context: Context) -> tuple[str, ...]:
    nvidia = ("pytorch", "tensorrt") if context.reading.gpus else ()
    return (*nvidia, "openvino")
