"""One release of TensorRT-LLM as data, complete."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field, JsonValue

from toolkit.errors import UnsupportedError
from toolkit.releases.entries import Checked, Entry, Runtime, T, lookup
from toolkit.releases.flags import BuildFlag
from toolkit.releases.formats import (
    Capability,
    Combination,
    FormatSupport,
    KvCache,
    Verdict,
    Weights,
    judge,
)
from toolkit.releases.llm_api import LlmApi
from toolkit.releases.triton import TritonModel


class Source(Entry):
    """Where a section of a table was read.

    Attributes:
        repository: ``owner/name`` on GitHub.
        path: A file in it; of its documentation branch where it ends in .html.
        revision: Commit, tag or branch.
        page: The documentation page, if one was read.
        checked: What the reading is worth.
        note: What was not found there, or differs from other sources.
    """

    repository: str
    path: str
    revision: str
    page: str | None = None
    checked: Checked
    note: str | None = None


class Container(Entry):
    """An NGC image that holds the release.

    Attributes:
        name: The image with its tag.
        driver: Version of the driver that belongs to the image's CUDA.
        driver_minimum: Major version from which any GPU runs it.
        forward_compatible: Older driver branches that data-centre GPUs may run it on.
    """

    name: str
    triton: str
    tensorrt: str
    cuda: str
    driver: str
    driver_minimum: int
    forward_compatible: tuple[int, ...] = ()
    python: str
    torch: str
    models: str


class SpeculationMethod(Entry):
    """A way of speculative decoding in one runtime.

    Attributes:
        name: ``runtime.method``, the method named as in the deployment file.
        decoding_type: How model.yaml spells it (``pytorch``).
        config_class: The LLM API class of its fields (``pytorch``).
        build_mode: Value of --speculative_decoding_mode (``tensorrt``).
        decoding_mode: Value of the Triton parameter of that name (``tensorrt``), if it has one.
        terms: From the deployment file's field to the runtime's name for it.
        conversion: From the deployment file's field to the option of convert_checkpoint.py
            (``tensorrt``).
        requires: Other settings that it does not work without, by the runtime's name.
        clashes_with: Fields of the deployment file that are refused beside it.
    """

    name: str
    runtime: Runtime
    decoding_type: str | None = None
    config_class: str | None = None
    build_mode: str | None = None
    decoding_mode: str | None = None
    terms: dict[str, str]
    conversion: dict[str, str] = Field(default_factory=dict)
    requires: dict[str, str] = Field(default_factory=dict)
    clashes_with: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """Its name in the deployment file."""
        return self.name.split(".", 1)[1]


class MetricFamily(Entry):
    """A metric that a server of this release exposes.

    Attributes:
        exporter: Which process counts it: Triton's C++ backend, or trtllm-serve.
        label: The label that tells the family's values apart.
    """

    name: str
    exporter: str
    kind: str
    label: str | None = None
    values: tuple[str, ...] = ()


class Term(Entry):
    """What a field of the deployment file is called by each part of the release.

    Attributes:
        name: The field's path, such as ``engine.kv_cache.reuse``.
        build_flags: trtllm-build flags that it decides.
        triton_parameters: Parameters of the engine path's tensorrt_llm model.
        llm_args: Paths below the LLM API's arguments.
        values: By those names: what stands for the deployment file's values, where the names take
            others. A value that is not listed has no counterpart there.
    """

    name: str
    build_flags: tuple[str, ...] = ()
    triton_parameters: tuple[str, ...] = ()
    llm_args: tuple[str, ...] = ()
    values: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    note: str | None = None


class Release(Entry):
    """One release.

    Attributes:
        version: As PyPI writes it.
        extends: The table that this one states its differences from, if any.
        commit: The tag's commit, as far as it is known.
        stable: Not a release candidate.
        python_minimum: What the wheel declares; None if it declares none.
    """

    version: str
    extends: str | None
    commit: str | None
    released: str
    stable: bool
    runtimes: tuple[Runtime, ...]
    python_minimum: str | None
    notes: tuple[str, ...]
    sources: dict[str, tuple[Source, ...]]
    containers: tuple[Container, ...]
    build_flags: tuple[BuildFlag, ...]
    llm_args: LlmApi
    speculation_methods: tuple[SpeculationMethod, ...]
    formats: tuple[FormatSupport, ...]
    triton_models: tuple[TritonModel, ...]
    metrics: tuple[MetricFamily, ...]
    terms: tuple[Term, ...]

    @property
    def title(self) -> str:
        """For messages."""
        return f"TensorRT-LLM {self.version}"

    @property
    def container(self) -> Container | None:
        """The newest Triton image that holds it; None if none is known to."""
        return max(self.containers, key=lambda image: image.triton, default=None)

    @property
    def built_image(self) -> str:
        """What TensorRT-LLM's docker/Makefile calls a Triton image that it is asked to build.

        ``make -C docker tritonrelease_build IMAGE_TAG=VERSION`` in a checkout of the release
        (tensorrtllm_backend, docs/build.md): the way to one where none is published.
        """
        return f"tensorrt_llm/tritonrelease:{self.version}"

    def covers(self, version: str) -> bool:
        """Whether ``version`` is this release, or a repaired build of it (``.post1``)."""
        return version == self.version or version.startswith(f"{self.version}.")

    def checked(self, section: str) -> Checked:
        """The least that a section's sources are worth."""
        order: tuple[Checked, ...] = ("near", "documentation", "tag")
        return min((source.checked for source in self.sources[section]), key=order.index)

    def build_flag(self, name: str) -> BuildFlag:
        """The trtllm-build flag called ``name`` (or by an alias), without dashes.

        Raises:
            UnsupportedError: the release does not have it.
        """
        for flag in self.build_flags:
            if name in flag.aliases:
                return flag
        self._needs("tensorrt", f"--{name}")
        return self._find(self.build_flags, name, "trtllm-build flag", "trtllm-build")

    def triton_model(self, name: str, runtime: Runtime = "tensorrt") -> TritonModel:
        """The Triton model ``name`` of a runtime.

        Raises:
            UnsupportedError: the release does not have it.
        """
        self._needs(runtime, f"model {name}")
        full = f"{runtime}.{name}"
        return self._find(self.triton_models, full, "Triton model", "the model repository")

    def speculation(self, method: str, runtime: Runtime = "pytorch") -> SpeculationMethod:
        """How a method of the deployment file is asked for.

        Raises:
            UnsupportedError: the runtime does not have it in this release.
        """
        self._needs(runtime, "engine.runtime")
        for found in self.speculation_methods:
            if found.name == f"{runtime}.{method}":
                return found
        known = [m.method for m in self.speculation_methods if m.runtime == runtime]
        raise UnsupportedError(
            f"{self.title} has no speculation method {method} in the {runtime} runtime",
            where="engine.speculation.method",
            hint=f"it has {', '.join(known)}",
        )

    def metric(self, name: str) -> MetricFamily:
        """The metric family called ``name``.

        Raises:
            UnsupportedError: the release does not have it.
        """
        return self._find(self.metrics, name, "metric", "metrics")

    def term(self, name: str) -> Term:
        """What the deployment file's field ``name`` is called in this release.

        Raises:
            UnsupportedError: nothing in the release corresponds to it.
        """
        return self._find(self.terms, name, "counterpart of the field", name)

    def supports(
        self,
        *,
        weights: Weights,
        kv: KvCache,
        compute_capability: Capability,
        runtime: Runtime,
    ) -> Verdict:
        """Whether these number formats compute on a GPU in this release."""
        wanted = Combination(runtime, weights, kv)
        return judge(self.formats, wanted, compute_capability, version=self.version)

    def _needs(self, runtime: Runtime, where: str) -> None:
        if runtime not in self.runtimes:
            raise UnsupportedError(
                f"{self.title} has no {runtime} runtime",
                where=where,
                hint=f"use engine.runtime: {self.runtimes[0]}, or another engine.release",
            )

    def _find(self, entries: Iterable[T], name: str, what: str, where: str) -> T:
        return lookup(entries, name, what=what, owner=self.title, where=where)
