"""What a gateway process serves: everything it needs to start, in one file without secrets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from toolkit.errors import SpecError
from toolkit.spec.gateway import Gateway, Scheduling
from toolkit.spec.models import Deployment

PLAN = "gateway.json"
"""The plan of a deployment's own gateway, in its run directory."""


class ModelPlan(BaseModel):
    """One model and the Tritons that serve it.

    Attributes:
        tokenizer: Folder with tokenizer.json and the chat template.
        slots: Requests that one replica runs at once, where its metrics do not tell.
        addresses: ``host:port`` of gRPC, ``/port`` of metrics behind it if there are some.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    tokenizer: Path
    max_input_len: int
    max_seq_len: int
    slots: int
    guided: bool
    adapters: tuple[str, ...] = ()
    scheduling: Scheduling
    addresses: tuple[str, ...]


class GatewayPlan(BaseModel):
    """One gateway: its models, and how it listens."""

    model_config = ConfigDict(frozen=True)

    models: tuple[ModelPlan, ...]
    gateway: Gateway


def plan_model(deployment: Deployment, tokenizer: Path, addresses: Sequence[str] = ()) -> ModelPlan:
    """The plan for one deployment, served at ``addresses`` and at those that its file names."""
    engine, limits = deployment.engine, deployment.engine.limits
    return ModelPlan(
        name=deployment.name,
        tokenizer=tokenizer.absolute(),
        max_input_len=limits.max_input_len,
        max_seq_len=limits.max_seq_len,
        slots=limits.max_batch_size * deployment.serving.replicas,
        guided=engine.guided_decoding is not None,
        adapters=tuple(engine.lora.adapters) if engine.lora else (),
        scheduling=deployment.scheduling,
        addresses=(*addresses, *deployment.gateway.replicas),
    )


def join(models: Sequence[ModelPlan], gateway: Gateway) -> GatewayPlan:
    """Several models behind one gateway.

    Raises:
        SpecError: two have the same name.
    """
    names = [each.name for each in models]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SpecError(
            f"two deployments are called {repeated[0]}",
            where="name",
            hint="clients tell models apart by name: change one",
        )
    return GatewayPlan(models=tuple(models), gateway=gateway)
