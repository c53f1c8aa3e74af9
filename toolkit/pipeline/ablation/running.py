"""Build, serve and measure every rung, round after round."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from toolkit.bench.ablation.assemble import Frame, assemble
from toolkit.bench.ablation.report import AblationReport
from toolkit.bench.report import BenchReport
from toolkit.errors import ServerError, SpecError, ToolkitError
from toolkit.pipeline.ablation import describing
from toolkit.pipeline.ablation.ladder import Ladder, Rung, ladder
from toolkit.pipeline.ablation.measured import as_measured
from toolkit.pipeline.ablation.method import Method
from toolkit.pipeline.ablation.serving import Built, measure_rung
from toolkit.pipeline.ablation.slots import Slot, SlotStore, newest, open_store
from toolkit.progress import Progress
from toolkit.serving.state import RunDirectory
from toolkit.spec.models import Deployment
from toolkit.spec.units import format_duration
from toolkit.workspace import Workspace, record_use


@dataclass(frozen=True)
class Where:
    """Where slots and report go, and whether an interrupted ablation is gone on with.

    ``folder`` None: a new one below the workspace, or with ``resume`` the newest that fits.
    """

    folder: Path | None = None
    resume: bool = False
    offline: bool = False


@dataclass
class _State:
    """What is known so far."""

    ladder: Ladder
    built: dict[str, Built]
    slots: dict[tuple[int, str], BenchReport]
    doubts: tuple[str, ...] = ()
    broken: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def ablate(
    deployment: Deployment,
    workspace: Workspace,
    method: Method,
    *,
    rungs: Sequence[str],
    where: Where,
    progress: Progress,
) -> tuple[AblationReport, Path]:
    """Measure ``rungs`` of the ladder of ``deployment``, and say what each is worth.

    Every rung is served alone, by a server that is started for each slot and stopped after it:
    no cache is carried over, and all rungs of a round answer the same prompts. Ctrl-C ends it
    with a partial report of what is finished; that is on disk, and ``where.resume`` goes on.
    A rung that fails is left out from then on, and the report says why.

    Returns:
        The report, and the folder that holds its slots.

    Raises:
        SpecError: no such rung, or nothing to resume.
        ServerError: another ablation of it runs, or no rung could be measured at all.
        ToolkitError: a build failed.
        KeyboardInterrupt: interrupted before anything was measured.
    """
    measured = as_measured(deployment, method.users)
    with _alone(deployment.name, measured.name, workspace):
        made = _derive(measured, workspace, where.offline, progress)
        chosen = made.chosen(rungs)
        state = _State(made, {}, {}, tuple(_beside(deployment.name, workspace)))
        for line in state.doubts:
            progress.note(line)
        store, seed = _open(deployment, workspace, method, where)
        _climb(state, chosen, store, workspace, replace(method, seed=seed), where.offline, progress)
    return _report(state, chosen, method), store.folder


@contextmanager
def _alone(name: str, served: str, workspace: Workspace) -> Iterator[None]:
    """Two at once would stop each other's servers."""
    with RunDirectory(workspace.root, served).lock("ablation", wait=False) as got:
        if not got:
            raise ServerError(
                f"an ablation of {name} is running already",
                where=str(workspace.root),
                hint="wait for it, or name another --workspace",
            )
        yield


def _climb(
    state: _State,
    chosen: Sequence[Rung],
    store: SlotStore,
    workspace: Workspace,
    method: Method,
    offline: bool,
    progress: Progress,
) -> None:
    """Build and measure, until it is done or interrupted."""
    try:
        state.built = _build(chosen, workspace, offline, progress)
        _recall(state, store, method.rounds)
        _measure_all(state, store, workspace, method, progress)
    except KeyboardInterrupt:
        state.interrupted = True
        if not state.slots:
            raise
        progress.note("interrupted: writing what was measured; --resume goes on")


def _derive(
    measured: Deployment, workspace: Workspace, offline: bool, progress: Progress
) -> Ladder:
    """The ladder, with what the runtime, the release and the memory refuse left out."""
    from toolkit.checkpoint import read_architecture
    from toolkit.doctor.need import resolved_runtime
    from toolkit.pipeline import stages
    from toolkit.pipeline.architectures import draft_architecture
    from toolkit.pipeline.planning import make_plan, settle

    job = stages.Job(measured, workspace, progress, offline)
    arch = read_architecture(stages.fetch(job).path)
    draft = draft_architecture(measured, arch, workspace, offline=offline)
    decide = settle if resolved_runtime(measured) == "openvino" else make_plan

    def check(candidate: Deployment) -> str | None:
        try:
            decide(candidate, arch, draft=draft if candidate.engine.speculation else None)
        except ToolkitError as error:
            return str(error)
        return None

    made = ladder(measured, check)
    for one in made.left_out:
        progress.note(f"left out: {one.title}: {one.reason}")
    return made


def _beside(name: str, workspace: Workspace) -> Iterator[str]:
    present = RunDirectory(workspace.root, name).read()
    if present is not None and present.runs:
        yield f"{name} runs on this machine, too, and takes its share while rungs are measured"


def _open(
    deployment: Deployment, workspace: Workspace, method: Method, where: Where
) -> tuple[SlotStore, int]:
    any_seed = method.seed is None
    seed = secrets.randbelow(2**31) if method.seed is None else method.seed
    wanted = method.identity(seed)
    prefix, parent = f"{deployment.name}-ablation", workspace.root / "bench"
    folder = where.folder
    if folder is None and where.resume:
        folder = newest(parent, prefix, wanted)
        if folder is None:
            raise SpecError(
                f"there is no ablation of {deployment.name} to resume with these options",
                where=str(parent),
                hint="leave out --resume, or name its directory: --output DIR",
            )
    if folder is None:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
        folder = parent / f"{prefix}-{stamp}"
    store = open_store(folder, wanted, resume=where.resume, any_seed=any_seed)
    present = store.identity()
    assert present is not None, "it was just written or read"
    return store, present.seed


def _build(
    chosen: Sequence[Rung], workspace: Workspace, offline: bool, progress: Progress
) -> dict[str, Built]:
    """All before the first is measured: a build would bend what is measured beside it."""
    from toolkit.pipeline.build import build

    built: dict[str, Built] = {}
    keys: list[str] = []
    for number, rung in enumerate(chosen, 1):
        progress.note(f"building {rung.title} ({number} of {len(chosen)})")
        result = build(rung.deployment, workspace, progress=progress, offline=offline)
        artifact = result.artifact("repository")
        assert artifact is not None, "a build ends with a repository"
        built[rung.key] = Built(rung, result.repository, result.runtime, artifact.key)
        keys += [stage.artifact.key for stage in result.stages]
        # Each build records what it alone uses, and all rungs are needed till the end.
        record_use(workspace.root, rung.deployment.name, list(dict.fromkeys(keys)))
    return built


def _recall(state: _State, store: SlotStore, rounds: int) -> None:
    """Take finished slots of the same server over."""
    for slot in store.load():
        built = state.built.get(slot.rung)
        if built is not None and built.served == slot.digest and slot.round < rounds:
            state.slots[slot.round, slot.rung] = slot.report


def _measure_all(
    state: _State, store: SlotStore, workspace: Workspace, method: Method, progress: Progress
) -> None:
    left = [slot for slot in _order(state.built, method.rounds) if slot not in state.slots]
    if state.slots:
        progress.note(f"{len(state.slots)} slots are there already")
    begun, done = time.monotonic(), 0
    for number, key in left:
        if key in state.broken:
            continue
        rung = state.built[key].rung
        progress.note(
            f"round {number + 1} of {method.rounds}: {rung.title}"
            + _remaining(time.monotonic() - begun, done, len(left) - done)
        )
        report = _slot(state, key, number, workspace, method, progress)
        done += 1
        if report is None:
            continue
        if report.partial:
            # The run has heard Ctrl-C; a slot that was cut short is measured again.
            raise KeyboardInterrupt
        state.slots[number, key] = report
        served = state.built[key].served
        store.save(Slot(rung=key, round=number, digest=served, report=report))


def _order(built: dict[str, Built], rounds: int) -> Iterator[tuple[int, str]]:
    """A B C, A B C: a drift of the machine falls on all rungs alike."""
    return ((number, key) for number in range(rounds) for key in built)


def _slot(
    state: _State,
    key: str,
    number: int,
    workspace: Workspace,
    method: Method,
    progress: Progress,
) -> BenchReport | None:
    report: BenchReport | None = None
    try:
        report = measure_rung(state.built[key], number, workspace.root, method, progress=progress)
        failure = report.failure  # cut short, though by nobody's Ctrl-C
    except ToolkitError as error:
        failure = str(error)
    if not failure:
        return report
    state.broken[key] = f"failed in round {number + 1}: {failure}"
    progress.note(f"{state.built[key].rung.title} {state.broken[key]}")
    return None


def _remaining(seconds: float, done: int, left: int) -> str:
    return f", about {format_duration(round(seconds / done * left))} to go" if done else ""


def _report(state: _State, chosen: Sequence[Rung], method: Method) -> AblationReport:
    if not state.slots:
        reasons = [f"{key}: {reason}" for key, reason in state.broken.items()]
        raise ServerError("no rung could be measured", where=method.title, details=reasons)
    titles = {rung.key: rung.title for rung in chosen}
    broken = (f"{titles[key]}: {reason}" for key, reason in state.broken.items())
    frame = Frame(
        title=method.title,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        rungs=describing.all_facts(
            state.ladder,
            {key: built.digest for key, built in state.built.items()},
            failed=state.built.keys() - {key for _, key in state.slots},
        ),
        rounds=method.rounds,
        removals=describing.removals(state.ladder),
        left_out=describing.left_out(state.ladder),
        partial=state.interrupted,
        notes=(*state.doubts, *broken),
    )
    return assemble(frame, state.slots)
