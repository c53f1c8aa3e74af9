"""Where things lie in a rendered repository, and which templates they come from.

The deployment's model is a python-backend model that speaks the public contract itself. It
is not put behind an ensemble, because an ensemble does not tell a running step that its
request was cancelled (Triton core, EnsembleContext::ScheduleSteps passes a cancellation on
only when it schedules a step; seen on 2.51 as well): every client that hung up would keep its
place in the batch until max_tokens. The alias ``tensorrt_llm`` is an ensemble the other way
round: it gives the model the tensor names of TensorRT-LLM's LLM API model.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from toolkit.errors import EnvironmentError_
from toolkit.spec.models import Deployment

ALIAS = "tensorrt_llm"
"""Triton model with the LLM API's tensor names."""

MODEL_TEMPLATE = "tensorrt_llm"
ALIAS_TEMPLATE = "llmapi"
SHARED = "shared"
SUFFIX = ".j2"
VERSION = "1"

ENGINE_FOLDER = Path(VERSION) / "engine"
TOKENIZER_FOLDER = Path(VERSION) / "tokenizer"
SETTINGS_FILE = Path(VERSION) / "settings.json"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
)
"""Copied from the checkpoint if there; the first one has to be."""


def template_root() -> Path:
    """The folder of templates: inside an installed package, or beside it in a checkout.

    Raises:
        EnvironmentError_: neither is there.
    """
    package = Path(str(resources.files("toolkit")))
    for folder in (package / "model_repo_templates", package.parent / "model_repo_templates"):
        if (folder / SHARED).is_dir():
            return folder
    raise EnvironmentError_(
        "the Triton model templates are missing from the installation",
        where=str(package),
        hint="install the package again",
    )


def template_files(runtime: str) -> Iterator[tuple[Path, Path]]:
    """Pairs of a template's place below its root and the file itself, in a fixed order.

    Files of the runtime's folder replace shared ones of the same name.
    """
    root = template_root()
    found: dict[Path, Path] = {}
    for folder in (root / SHARED, root / runtime):
        for file in folder.rglob("*"):
            place = file.relative_to(folder)
            # Tools leave caches beside sources: __pycache__, .mypy_cache.
            if file.is_file() and not any(part.startswith((".", "__py")) for part in place.parts):
                found[place] = file
    yield from sorted(found.items())


def rendered_place(template: Path, deployment: Deployment) -> Path:
    """Where a template lies in the repository."""
    models = {MODEL_TEMPLATE: deployment.name, ALIAS_TEMPLATE: ALIAS}
    model, *rest = template.parts
    return Path(models[model], *rest[:-1], template.name.removesuffix(SUFFIX))
