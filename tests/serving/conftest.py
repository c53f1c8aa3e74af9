"""A real Triton with a small repository of its own, for tests of launching and supervising."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolkit.progress import Silent
from toolkit.repository.contract import TensorContract, load_contract
from toolkit.serving import deploy, install
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.state import RunDirectory
from toolkit.spec.models import Ports

MODEL = Path(__file__).parent / "word_model/model.py"


def words_repository(path: Path, name: str = "words") -> Path:
    """A repository with the test's model, which has every tensor of the public contract."""
    contract = load_contract("public")
    lines = [
        f'name: "{name}"',
        'backend: "python"',
        f"max_batch_size: {contract.max_batch_size}",
        "model_transaction_policy { decoupled: true }",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
    ]
    for tensor in contract.inputs:
        optional = "optional: true" if tensor.optional else ""
        lines.append(f"input [ {{ {_tensor(tensor)} {optional} }} ]")
    lines += [f"output [ {{ {_tensor(tensor)} }} ]" for tensor in contract.outputs]
    version = path / name / "1"
    version.mkdir(parents=True)
    shutil.copy(MODEL, version)
    (path / name / "config.pbtxt").write_text("\n".join(lines))
    return path


def _tensor(tensor: TensorContract) -> str:
    return f'name: "{tensor.name}" data_type: {tensor.dtype} dims: {list(tensor.dims)}'


@pytest.fixture(scope="session")
def triton() -> install.ServerBinary:
    """The server of the wheel, in the user's cache (downloaded at first use)."""
    return install.install_server(Silent())


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A workspace root; whatever a test leaves running there is stopped."""
    yield tmp_path / "state"
    for path in (tmp_path / "state" / "run").glob("*/state.json"):
        deploy.stop(RunDirectory(tmp_path / "state", path.parent.name), force=True)


@pytest.fixture(scope="session")
def plan_for(triton: install.ServerBinary) -> Callable[..., LaunchPlan]:
    """Plans for the words model below a directory; keywords go to the plan's fields."""

    def make(root: Path, name: str = "words", **changes: object) -> LaunchPlan:
        repository = root / f"repository-{name}"
        if not repository.exists():
            words_repository(repository, name)
        plan = LaunchPlan(
            name=name,
            repository=repository,
            repository_digest=deploy.repository_digest(repository),
            executable=triton.executable,
            backends=triton.backends,
            host="127.0.0.1",
            ports=Ports(http=0, grpc=0, metrics=0),
            ready_timeout=60,
            drain_timeout=10,
            max_batch_size=8,
        )
        return plan.model_copy(update=changes)

    return make


@pytest.fixture
def make_plan(plan_for: Callable[..., LaunchPlan], tmp_path: Path) -> Callable[..., LaunchPlan]:
    """:func:`plan_for` below the test's own directory."""
    return functools.partial(plan_for, tmp_path)
