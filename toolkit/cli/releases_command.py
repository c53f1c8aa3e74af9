"""``toolkit releases``: what the TensorRT-LLM releases have, from the tables of the package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.options import JsonOption
from toolkit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from toolkit.releases import Field, Release


class Part(str, Enum):
    """What of a release is shown."""

    containers = "containers"
    formats = "formats"
    speculation = "speculation"
    terms = "terms"
    sources = "sources"
    build_flags = "build-flags"
    llm_args = "llm-args"
    triton = "triton"
    metrics = "metrics"


_BRIEF = (Part.containers, Part.formats, Part.speculation, Part.terms, Part.sources)


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("releases")(releases)


def releases(
    version: Annotated[
        str | None,
        typer.Argument(metavar="[VERSION]", help="Such as 1.2.1 or 1.2.", show_default=False),
    ] = None,
    show: Annotated[
        list[Part] | None,
        typer.Option("--show", help="Only this part of the release; may be repeated."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the TensorRT-LLM releases that the toolkit knows, or all about one of them.

    How far a table was compared with upstream stands under sources: at the release's tag, in its
    documentation, or near it.
    """
    from toolkit.releases import known_releases, release

    if version is None:
        found = known_releases()
        if json:
            print_json([_summary(known) for known in found])
        else:
            _print_all(found)
        return
    chosen = release(version, where="VERSION")
    if json:
        print_json(chosen)
        return
    for part in show or _BRIEF:
        title, columns, rows = _PARTS[part](chosen)
        print_table(f"{chosen.title}: {title}", columns, rows)
    if not show:
        for note in chosen.notes:
            typer.echo(note)
        typer.echo("--show build-flags, llm-args, triton or metrics shows more.")


def _summary(known: Release) -> dict[str, object]:
    return {
        **known.model_dump(
            mode="json", include={"version", "released", "stable", "runtimes", "python_minimum"}
        ),
        "container": known.container.name if known.container else None,
        "checked": {section: known.checked(section) for section in known.sources},
    }


def _print_all(found: Sequence[Release]) -> None:
    print_table(
        "TensorRT-LLM releases",
        ("release", "published", "runtimes", "Python", "newest Triton image", "read at the tag"),
        (
            (
                known.version if known.stable else f"{known.version} (candidate)",
                known.released,
                ", ".join(known.runtimes),
                f">= {known.python_minimum}" if known.python_minimum else "undeclared",
                known.container.name.split("/")[-1] if known.container else "-",
                ", ".join(_at_tag(known)) or "-",
            )
            for known in found
        ),
    )


def _at_tag(known: Release) -> Iterable[str]:
    """Sections read at the tag; a part of others was read elsewhere (see ``releases NAME``)."""
    for section, sources in known.sources.items():
        tagged = [source.checked == "tag" for source in sources]
        if section != "terms" and any(tagged):
            yield section if all(tagged) else f"{section} (in part)"


_Table = tuple[str, Sequence[str], Iterable[Sequence[object]]]


def _containers(known: Release) -> _Table:
    columns = ("image", "TensorRT", "CUDA", "driver", "needs driver", "Python", "models from")
    rows = (
        (
            image.name,
            image.tensorrt,
            image.cuda,
            image.driver,
            f"{image.driver_minimum} or newer",
            image.python,
            image.models,
        )
        for image in known.containers
    )
    return "Triton images", columns, rows


def _formats(known: Release) -> _Table:
    columns = ("runtime", "compute capability", "GPU", "weights", "KV cache", "caution")
    rows = (
        (
            row.runtime,
            f"{row.capability[0]}.{row.capability[1]}",
            row.architecture,
            ", ".join(row.weights),
            ", ".join(row.kv_cache),
            "; ".join(row.cautions.values()),
        )
        for row in known.formats
    )
    return "number formats by compute capability", columns, rows


def _speculation(known: Release) -> _Table:
    columns = ("runtime", "method", "asked for with", "fields", "needs")
    rows = (
        (
            method.runtime,
            method.method,
            f"decoding_type {method.decoding_type}"
            if method.decoding_type
            else f"--speculative_decoding_mode {method.build_mode}",
            ", ".join(f"{ours} -> {theirs}" for ours, theirs in method.terms.items()),
            ", ".join(f"{name} {value}" for name, value in method.requires.items()),
        )
        for method in known.speculation_methods
    )
    return "speculative decoding", columns, rows


def _terms(known: Release) -> _Table:
    columns = ("deployment file", "trtllm-build", "Triton parameter", "LLM API")
    rows = (
        (
            term.name,
            ", ".join(f"--{name}" for name in term.build_flags),
            ", ".join(term.triton_parameters),
            ", ".join(term.llm_args),
        )
        for term in known.terms
    )
    return "what the deployment file's fields are called", columns, rows


def _sources(known: Release) -> _Table:
    columns = ("part", "checked", "repository", "path", "revision", "note")
    rows = (
        (section, s.checked, s.repository, s.path, s.revision[:12], s.note or "")
        for section, sources in known.sources.items()
        for s in sources
    )
    return "sources", columns, rows


def _build_flags(known: Release) -> _Table:
    columns = ("flag", "kind", "default", "choices", "meaning")
    rows = (
        (
            flag.option,
            flag.kind,
            "" if flag.default is None else flag.default,
            ", ".join(flag.choices),
            flag.meaning,
        )
        for flag in known.build_flags
    )
    return "trtllm-build", columns, rows


def _llm_args(known: Release) -> _Table:
    columns = ("class", "field", "kind", "default", "choices", "meaning")
    rows = (
        (
            config.name,
            field.name,
            f"{field.kind} or null" if field.optional else field.kind,
            _default(field),
            ", ".join(field.choices or field.config),
            field.meaning,
        )
        for config in known.llm_args.classes
        for field in config.fields
    )
    return "LLM API", columns, rows


def _default(field: Field) -> object:
    if field.required:
        return "required"
    return "null" if field.default is None else field.default


def _triton(known: Release) -> _Table:
    columns = ("model", "", "name", "type", "dims or default", "meaning")
    rows: list[Sequence[object]] = []
    for model in known.triton_models:
        parameters = (*model.parameters, *model.settings)
        rows += [
            (model.name, "parameter", p.name, p.kind, p.default, p.meaning) for p in parameters
        ]
        for direction, tensors in (("input", model.inputs), ("output", model.outputs)):
            rows += [
                (
                    model.name,
                    direction,
                    t.name,
                    t.dtype,
                    list(t.dims),
                    _needed(direction, t.optional),
                )
                for t in tensors
            ]
    return "Triton models", columns, rows


def _needed(direction: str, optional: bool) -> str:
    return "optional" if optional else "required" if direction == "input" else ""


def _metrics(known: Release) -> _Table:
    columns = ("metric", "counted by", "kind", "label", "values")
    rows = (
        (family.name, family.exporter, family.kind, family.label or "", ", ".join(family.values))
        for family in known.metrics
    )
    return "metrics", columns, rows


_PARTS = {
    Part.containers: _containers,
    Part.formats: _formats,
    Part.speculation: _speculation,
    Part.terms: _terms,
    Part.sources: _sources,
    Part.build_flags: _build_flags,
    Part.llm_args: _llm_args,
    Part.triton: _triton,
    Part.metrics: _metrics,
}
