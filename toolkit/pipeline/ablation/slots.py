"""What is measured of an ablation, on disk: one ordinary report for each rung and round."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from toolkit.bench.report import BenchReport
from toolkit.errors import EnvironmentError_, SpecError
from toolkit.pipeline.ablation.method import Identity

_IDENTITY, _SLOTS = "identity.json", "slots"


class Slot(BaseModel):
    """One rung in one round; ``digest`` names what was served."""

    model_config = ConfigDict(frozen=True)

    rung: str
    round: int
    digest: str
    report: BenchReport


@dataclass(frozen=True)
class SlotStore:
    """The slots of one ablation in a folder."""

    folder: Path

    @property
    def used(self) -> bool:
        """Whether an ablation was begun here."""
        return (self.folder / _IDENTITY).exists()

    def identity(self) -> Identity | None:
        """Of the ablation that was begun here; None if there is none that can be read."""
        try:
            return Identity.model_validate_json((self.folder / _IDENTITY).read_bytes())
        except (OSError, ValueError):
            return None

    def begin(self, identity: Identity) -> None:
        """Say what is measured here.

        Raises:
            EnvironmentError_: the folder cannot be written.
        """
        self._write(self.folder / _IDENTITY, identity.model_dump_json(indent=1))

    def save(self, slot: Slot) -> None:
        """Keep one slot, whole or not at all.

        Raises:
            EnvironmentError_: the folder cannot be written.
        """
        name = f"{slot.round + 1:03d}-{slot.rung}.json"
        self._write(self.folder / _SLOTS / name, slot.model_dump_json())

    def load(self) -> list[Slot]:
        """All that are whole; a file that cannot be read is measured again."""
        found = []
        for path in sorted((self.folder / _SLOTS).glob("*.json")):
            try:
                found.append(Slot.model_validate_json(path.read_bytes()))
            except (OSError, ValueError):
                continue
        return found

    def _write(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f".{path.name}.{os.getpid()}"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise EnvironmentError_(
                f"what was measured cannot be kept: {error.strerror}", where=str(path.parent)
            ) from error


def open_store(folder: Path, wanted: Identity, *, resume: bool, any_seed: bool) -> SlotStore:
    """The store in ``folder``: fresh, or with ``resume`` the one that is there.

    Args:
        folder: Where.
        wanted: What is to be measured.
        resume: Go on with what was begun there.
        any_seed: Take the seed of what is there.

    Raises:
        SpecError: another ablation is there, or none that could be resumed.
    """
    store = SlotStore(folder)
    present = store.identity()
    if not resume:
        if store.used:
            raise SpecError(
                "there is an ablation already",
                where=str(folder),
                hint="--resume goes on with it; or name another directory",
            )
        store.begin(wanted)
        return store
    if present is None:
        raise SpecError("there is no ablation to resume", where=str(folder))
    if present != wanted and not (any_seed and present.like(wanted)):
        raise SpecError(
            "the ablation there has another workload, load or seed",
            where=str(folder),
            hint="resume it with the same options, or leave out --resume",
        )
    return store


def newest(parent: Path, prefix: str, wanted: Identity) -> Path | None:
    """The newest folder below ``parent`` that can be resumed for ``wanted``, whatever its seed.

    One in which nothing was finished is passed over: there may be an older one to go on with.
    """
    folders = sorted(parent.glob(f"{prefix}-*"), reverse=True)
    for folder in folders:
        present = SlotStore(folder).identity()
        begun = any((folder / _SLOTS).glob("*.json"))
        if begun and present is not None and present.like(wanted):
            return folder
    return None
