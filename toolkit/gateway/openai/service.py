"""What every endpoint works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.gateway.guard.admission import Admission
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.openai.settings import ApiSettings
from toolkit.gateway.work import GatewayError, Generator


@dataclass(frozen=True, slots=True)
class Service:
    """Models by name, what runs them, and who may ask."""

    models: Mapping[str, ServedModel]
    generator: Generator
    admission: Admission
    settings: ApiSettings

    def model(self, name: str) -> ServedModel:
        """The model of that name.

        Raises:
            GatewayError: 404.
        """
        found = self.models.get(name)
        if found is None:
            raise unknown_model(name)
        return found


def unknown_model(name: str) -> GatewayError:
    """404."""
    return GatewayError(
        404, f"The model '{name}' does not exist.", code="model_not_found", param="model"
    )
