"""Efficiency factors of this user's own machines: from a benchmark's report, kept in a file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.bench.report import BenchReport, Point
from toolkit.capacity.calibration import Calibration, Observation
from toolkit.capacity.efficiency import Efficiency, read_efficiency
from toolkit.capacity.roofline import Device
from toolkit.capacity.traffic import Traffic, acceptance_of
from toolkit.errors import EnvironmentError_, SpecError
from toolkit.spec.models import Runtime

FILE = "calibration.json"
CPU = "cpu"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Known:
    """What was calibrated: factors, and the processor's figures that they refer to."""

    factors: Efficiency
    device: Device
    worst: float


def key_of(device: str, runtime: Runtime) -> str:
    """The name of an entry: factors hold for one processor and one runtime."""
    return f"{device} {runtime}"


def read_known(root: Path) -> dict[str, Known]:
    """Everything that was calibrated in this workspace, by :func:`key_of`.

    Raises:
        SpecError: the file is damaged.
    """
    path = root / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot be read: {error}", where=str(path)) from error
    try:
        if data["version"] != _VERSION:
            raise SpecError("is of another version", where=str(path), hint="calibrate anew")
        return {name: _known(entry, str(path)) for name, entry in data["known"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise SpecError("is no calibration", where=str(path), hint="calibrate anew") from error


def keep(root: Path, name: str, device: Device, made: Calibration) -> Path:
    """Write one entry beside the others; returns the file.

    Raises:
        EnvironmentError_: the workspace cannot be written.
    """
    known = {**read_known(root), name: Known(made.factors, device, made.worst)}
    content = {"version": _VERSION, "known": {n: _entry(each) for n, each in known.items()}}
    path = root / FILE
    temporary = root / f".{FILE}.{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentError_(f"cannot be written: {error.strerror}", where=str(path)) from error
    return path


def observations(
    report: BenchReport, *, drafts: int = 0, checked: int = 0, replicas: int = 1
) -> list[Observation]:
    """The loads of a report whose requests and times per token are known, of one replica.

    The number of running requests follows from Little's law: requests a second times tokens of an
    answer times seconds a token. Replicas share them evenly.
    """
    found = (observation(point, drafts, replicas, checked=checked) for point in report.points)
    return [each for each in found if each is not None]


def observation(
    point: Point, drafts: int = 0, replicas: int = 1, *, checked: int = 0
) -> Observation | None:
    """One load, likewise; None where a figure is missing.

    Of a tree, ``checked`` drafts are proposed in a step and ``drafts`` of them may be accepted.
    """
    tpot, prompt = _mean(point, "tpot"), _mean(point, "prompt_tokens")
    output, rate = _mean(point, "output_tokens"), point.totals.get("request_throughput")
    if not tpot or not prompt or not output or rate is None or rate.value <= 0:
        return None
    reuse, accepted = point.totals.get("kv_reuse"), point.totals.get("draft_acceptance")
    traffic = Traffic(
        prompt,
        output,
        hit_rate=reuse.value if reuse else 0.0,
        acceptance=_acceptance(accepted.value, drafts, checked) if accepted else 0.0,
        drafts=drafts if accepted else 0,
        checked=checked if accepted else 0,
    )
    alone = point.load.type == "closed" and point.load.concurrency == 1
    first, running = _mean(point, "ttft"), rate.value * output * tpot / 1000 / replicas
    return Observation(
        label=point.label,
        traffic=traffic,
        # A lone user's prompt is never computed between their own tokens.
        running=1.0 if alone else running,
        tpot_s=tpot / 1000,
        ttft_s=first / 1000 if alone and first else None,
        together=alone,
    )


def _acceptance(share: float, drafts: int, checked: int) -> float:
    proposed = max(drafts, checked)
    return acceptance_of(share * proposed / drafts, drafts) if drafts else 0.0


def check_report(report: BenchReport, name: str, where: str) -> list[str]:
    """What to know of a report that a deployment is to be calibrated with.

    Raises:
        SpecError: it is of another deployment.
    """
    if report.target.name != name:
        raise SpecError(
            f"the report is of {report.target.name!r}, the deployment file of {name!r}",
            where=where,
            hint="toolkit bench FILE measures the deployment of that file",
        )
    notes = []
    if report.partial:
        notes.append("the report was interrupted: its last load may not be whole")
    if len(report.points) < 2:
        notes.append(
            "the report has one load: what a step costs whatever is in it, and what each request "
            "adds, cannot be told apart; measure several numbers of users"
        )
    return notes


def _mean(point: Point, name: str) -> float | None:
    distribution = point.distributions.get(name)
    mean = distribution.stats.get("mean") if distribution else None
    return mean.value if mean else None


def _entry(known: Known) -> dict[str, Any]:
    device = known.device
    return {
        "factors": known.factors.as_json(),
        "worst_error": known.worst,
        "device": {
            "name": device.name,
            "bandwidth": device.bandwidth,
            "linear_rate": device.linear_rate,
            "attention_rate": device.attention_rate,
            "link": device.link,
        },
    }


def _known(entry: dict[str, Any], where: str) -> Known:
    device = entry["device"]
    figures = [float(device[n]) for n in ("bandwidth", "linear_rate", "attention_rate", "link")]
    return Known(
        read_efficiency(entry["factors"], where),
        Device(str(device["name"]), *figures),
        float(entry["worst_error"]),
    )
