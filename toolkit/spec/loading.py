"""Reading a deployment file: YAML, environment, ``--set`` flags, and errors that name the place."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from toolkit.errors import SpecError
from toolkit.spec.document import Json, MappingNode, Node, ScalarNode, parse, plain
from toolkit.spec.explain import explain
from toolkit.spec.gateway import Gateway, Tls
from toolkit.spec.models import Deployment
from toolkit.spec.overrides import apply, from_environment, from_flags, refuse_near_misses
from toolkit.spec.problems import Place, Problem, refuse_all
from toolkit.spec.speculation import DraftModel, Eagle, Eagle3, Medusa

MAX_BYTES = 2**20
"""A deployment file is a page; anything past this is another kind of file."""

_SCHEME = re.compile(r"hf://|sample:")


@dataclass(frozen=True, slots=True)
class LoadedDeployment:
    """A deployment, the file that it came from, and the data after overrides."""

    deployment: Deployment
    path: Path
    data: Mapping[str, Json]

    def absolute(self, source: str) -> str:
        """``source`` as model.source and its like are meant: a path counts from the file's folder.

        ``hf://`` and ``sample:`` sources stay as they are; ``~`` is the user's home.
        """
        return absolute(source, self.path)

    def resolved(self) -> Deployment:
        """The deployment with every path in it made absolute."""
        original = self.deployment
        calibration = original.quantization.calibration
        if calibration.source.endswith((".jsonl", ".txt")):
            calibration = calibration.model_copy(
                update={"source": self.absolute(calibration.source)}
            )
        return original.model_copy(
            update={
                "model": original.model.model_copy(
                    update={"source": self.absolute(original.model.source)}
                ),
                "quantization": original.quantization.model_copy(
                    update={"calibration": calibration}
                ),
                "engine": original.engine.model_copy(
                    update={"speculation": self._speculation(), "lora": self._lora()}
                ),
                "gateway": absolute_gateway(original.gateway, self.path),
            }
        )

    def _lora(self) -> object:
        lora = self.deployment.engine.lora
        if lora is None:
            return None
        adapters = {name: self.absolute(source) for name, source in lora.adapters.items()}
        return lora.model_copy(update={"adapters": adapters})

    def _speculation(self) -> object:
        chosen = self.deployment.engine.speculation
        if isinstance(chosen, Eagle | Eagle3 | Medusa):
            return chosen.model_copy(update={"source": self.absolute(chosen.source)})
        if isinstance(chosen, DraftModel) and chosen.draft.source is not None:
            source = self.absolute(chosen.draft.source)
            draft = chosen.draft.model_copy(update={"source": source})
            return chosen.model_copy(update={"draft": draft})
        return chosen


def absolute(source: str, file: Path) -> str:
    """``source`` as ``file`` means it: a path counts from the folder of the file."""
    if _SCHEME.match(source):
        return source
    path = Path(source)
    with contextlib.suppress(RuntimeError):  # "~name" where nobody is so called
        path = path.expanduser()
    return os.path.normpath(file.resolve().parent / path)


def absolute_gateway(gateway: Gateway, file: Path) -> Gateway:
    """``gateway`` with the paths that ``file`` gives in it made absolute."""
    tls = gateway.tls
    if tls is not None:
        tls = Tls(certificate=absolute(tls.certificate, file), key=absolute(tls.key, file))
    keys = gateway.keys and absolute(gateway.keys, file)
    return gateway.model_copy(update={"keys": keys, "tls": tls})


def load(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> LoadedDeployment:
    """The deployment in ``path``.

    A field's value comes from the last that gives it: the file, the variable
    ``TOOLKIT__SECTION__FIELD``, a flag ``--set section.field=value``.

    Args:
        path: The YAML file.
        overrides: ``section.field=value`` each, the value in YAML.
        environ: Where ``${NAME}`` references and ``TOOLKIT__`` variables are looked up.

    Raises:
        SpecError: the file, a variable or a flag is wrong. ``where`` is the place of the first
            mistake, such as ``deploy.yaml:12:5``; ``details`` has one line for each other one.
    """
    root: Node = read_document(path, environ=environ)
    if lists_models(root):
        raise SpecError(
            "this file lists models, and the command is about one",
            where=str(path),
            hint=f"name one of its deployment files; toolkit plan {path} says how to deploy each",
        )
    refuse_near_misses(environ, Deployment.model_fields)
    root = apply(root, [*from_environment(environ), *from_flags(overrides)])
    return LoadedDeployment(validate(root), path, _mapping(root))


def lists_models(root: Node) -> bool:
    """Whether a document is a fleet's (:mod:`toolkit.spec.fleet`) and no deployment."""
    return (
        isinstance(root, MappingNode)
        and "models" in root.entries
        and not root.entries.keys() & {"name", "model"}
    )


def read_document(path: Path, *, environ: Mapping[str, str] | None = os.environ) -> MappingNode:
    """The file as data that knows its places, nothing checked but that it holds sections.

    Args:
        environ: Where ``${NAME}`` references are looked up; None leaves them alone.

    Raises:
        SpecError: it cannot be read, is empty, or no YAML with sections.
    """
    root = parse(_read(path), str(path), environ=environ)
    if root is None or (isinstance(root, ScalarNode) and root.value is None):
        raise SpecError(
            "the file is empty",
            where=str(path),
            hint=f"toolkit init --model SOURCE --output {path} --force writes one",
        )
    if not isinstance(root, MappingNode):
        raise SpecError(
            "a deployment file holds sections such as name: and model:",
            where=str(root.place),
            hint="toolkit init --model SOURCE writes one to start from",
        )
    return root


def validate(root: Node) -> Deployment:
    """The deployment that a document describes.

    Raises:
        SpecError: as :func:`load`.
    """
    try:
        return Deployment.model_validate(plain(root))
    except ValidationError as error:
        refuse_all(explain(error, Deployment, root))
        raise


def _mapping(root: Node) -> dict[str, Json]:
    data = plain(root)
    assert isinstance(data, dict)
    return data


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise SpecError(
            "there is no such file",
            where=str(path),
            hint=f"toolkit init --model SOURCE --output {path} writes one",
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        hint = "name the deployment file in it" if path.is_dir() else None
        raise SpecError(f"cannot be read: {reason}", where=str(path), hint=hint) from error
    if len(content) > MAX_BYTES:
        raise SpecError(
            f"larger than {MAX_BYTES // 2**20} MiB: not a deployment file", where=str(path)
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = len(content[: error.start].rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        problem = Problem(
            f"not UTF-8: byte 0x{content[error.start]:02x}",
            Place(str(path), line, column),
            "save the file as UTF-8",
        )
        refuse_all([problem])
        raise
