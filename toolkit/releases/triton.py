"""Triton models that a release ships: parameters, tensors, ensemble steps."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from toolkit.releases.entries import Entry, Runtime, lookup
from toolkit.releases.values import Kind, problem, read


class Tensor(Entry):
    """One input or output.

    Attributes:
        dtype: As in config.pbtxt (``TYPE_INT32``); the default where it is chosen at rendering.
        dtype_choices: What may be chosen; empty if it is fixed.
        dims: Without the batch dimension where the model batches.
        ragged: Requests of different lengths are batched without padding.
        scalar: Reshaped to no dimensions beside the batch.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False
    ragged: bool = False
    scalar: bool = False
    dtype_choices: tuple[str, ...] = ()
    meaning: str = ""


class Parameter(Entry):
    """One ``parameters`` entry of config.pbtxt or key of model.yaml's ``triton_config``.

    Attributes:
        default: What the backend takes if it is absent, as text; None if that depends on others.
        fixed: The only text that it may have.
        variable: What upstream's template calls it, where that differs.
        required: Without it the model does not load.
        unused: The release accepts it and ignores it.
    """

    name: str
    kind: Kind
    default: str | None = None
    fixed: str | None = None
    choices: tuple[str, ...] = ()
    variable: str | None = None
    required: bool = False
    unused: bool = False
    meaning: str = ""

    def problem(self, text: str) -> str | None:
        """Why the parameter does not take ``text``; None if it does."""
        try:
            value: JsonValue = read(self.kind, text)
        except ValueError as error:
            return f"has to be {error}"
        return problem(self.kind, value, choices=self.choices)


class Step(Entry):
    """One step of an ensemble; the maps go from the step's tensor to the ensemble's."""

    model: str
    input_map: dict[str, str]
    output_map: dict[str, str]


class TritonModel(Entry):
    """One model of the repository.

    Attributes:
        name: ``runtime.model``, such as ``tensorrt.preprocessing``.
        batched: config.pbtxt sets a max_batch_size above 0, so that clients send a batch dimension.
    """

    name: str
    runtime: Runtime
    backend: str
    backend_choices: tuple[str, ...] = ()
    batched: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[Parameter, ...] = ()
    settings: tuple[Parameter, ...] = ()
    steps: tuple[Step, ...] = ()
    meaning: str = ""

    @property
    def model(self) -> str:
        """Its name in the repository."""
        return self.name.split(".", 1)[1]

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name, or the one that the template's variable of it fills.

        Raises:
            UnsupportedError: the model does not have it.
        """
        for parameter in self.parameters:
            if name == parameter.variable:
                return parameter
        return lookup(
            self.parameters,
            name,
            what="parameter",
            owner=f"model {self.model}",
            where=f"{self.model}/config.pbtxt",
        )

    def tensor(self, name: str, direction: Literal["input", "output"] = "input") -> Tensor:
        """The input or output of that name.

        Raises:
            UnsupportedError: the model does not have it.
        """
        return lookup(
            self.inputs if direction == "input" else self.outputs,
            name,
            what=f"{direction} tensor",
            owner=f"model {self.model}",
            where=f"{self.model}/config.pbtxt",
        )
