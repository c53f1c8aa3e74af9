"""The mapping from the deployment file reaches names that exist, on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from toolkit.errors import UnsupportedError
from toolkit.releases import Release, SpeculationMethod, Term, known_releases, release
from toolkit.spec.models import Deployment, Speculation

RELEASES = known_releases()
METHODS: dict[str, type[BaseModel]] = {
    model.model_fields["method"].default: model for model in get_args(get_args(Speculation)[0])
}

every_release = pytest.mark.parametrize("known", RELEASES, ids=lambda known: known.version)
SPECULATION = [
    pytest.param(known, method, id=f"{known.version}-{method.name}")
    for known in RELEASES
    for method in known.speculation_methods
]


def spec_field(path: str) -> FieldInfo:
    model: Any = Deployment
    info = FieldInfo()
    for part in path.split("."):
        optional = [a for a in get_args(model) if hasattr(a, "model_fields")]
        info = (optional[0] if optional else model).model_fields[part]
        model = info.annotation
    return info


def literals(annotation: Any) -> set[str]:
    if annotation is bool:
        return {"true", "false"}
    found: set[str] = set()
    for argument in get_args(annotation):
        found |= {argument} if isinstance(argument, str) else literals(argument)
    return found


def translated(term: Term) -> Iterator[tuple[str, Any]]:
    for name, values in term.values.items():
        for theirs in values.values():
            yield name, theirs


@every_release
def test_a_term_joins_a_field_of_the_file_to_names_of_the_release(known: Release) -> None:
    for term in known.terms:
        assert spec_field(term.name), term.name
        assert term.build_flags or term.triton_parameters or term.llm_args, term.name
        for name in term.build_flags:
            assert known.build_flag(name).name == name
        for name in term.triton_parameters:
            assert known.triton_model("tensorrt_llm").parameter(name).name == name
        for path in term.llm_args:
            assert known.llm_args.field(path)


@every_release
def test_translated_values_are_the_files_and_the_releases_own(known: Release) -> None:
    for term in known.terms:
        assert set(term.values) <= {*term.build_flags, *term.triton_parameters, *term.llm_args}
        for values in term.values.values():
            assert set(values) <= literals(spec_field(term.name).annotation), term.name
        for name, theirs in translated(term):
            if name in term.build_flags:
                assert known.build_flag(name).problem(theirs) is None, name
            else:
                assert known.llm_args.field(name).problem(theirs) is None, name


@every_release
def test_values_are_translated_wherever_the_release_would_refuse_ours(known: Release) -> None:
    for term in known.terms:
        ours = literals(spec_field(term.name).annotation) - {"auto", "none"}
        for name in term.build_flags:
            flag = known.build_flag(name)
            if name not in term.values and flag.kind == "choice":
                assert ours <= set(flag.choices), term.name
        for path in term.llm_args:
            field = known.llm_args.field(path)
            if path not in term.values and field.kind == "choice":
                assert ours <= set(field.choices), term.name


def test_every_limit_reaches_both_runtimes() -> None:
    for known in RELEASES:
        for limit in ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens"):
            term = known.term(f"engine.limits.{limit}")
            assert term.llm_args
            assert bool(term.build_flags) == ("tensorrt" in known.runtimes)


def test_a_field_without_counterpart_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnsupportedError) as caught:
        release("1.2.1").term("engine.limit.max_batch_size")
    assert caught.value.hint == "did you mean engine.limits.max_batch_size?"


@pytest.mark.parametrize(("known", "method"), SPECULATION)
def test_a_method_is_asked_for_in_words_of_the_release(
    known: Release, method: SpeculationMethod
) -> None:
    assert method.runtime in known.runtimes
    if method.runtime == "pytorch":
        assert method.decoding_type
        assert method.config_class
        config = known.llm_args.config_class(method.config_class)
        assert config.tag == ("decoding_type", method.decoding_type)
        assert method.config_class in known.llm_args.field("speculative_config").config
        assert set(method.terms.values()) <= set(config.by_name)
        assert all(known.llm_args.has(name) for name in method.requires)
        assert not (method.build_mode)
        assert not (method.decoding_mode)
        assert not (method.conversion)
        return
    model = known.triton_model("tensorrt_llm")
    assert method.build_mode in known.build_flag("speculative_decoding_mode").choices
    if method.decoding_mode is not None:
        assert method.decoding_mode in model.parameter("decoding_mode").choices
    parameters = {parameter.name for parameter in model.parameters}
    flags = {flag.name for flag in known.build_flags}
    assert set(method.terms.values()) <= parameters | flags
    for name, value in method.requires.items():
        flag = known.build_flag(name)
        assert flag.problem(int(value) if flag.kind == "int" else value) is None


@pytest.mark.parametrize(("known", "method"), SPECULATION)
def test_a_methods_fields_are_those_of_the_deployment_file(
    known: Release, method: SpeculationMethod
) -> None:
    asked = METHODS.get(method.method)
    ours = set(asked.model_fields) if asked else set()
    assert set(method.terms) | set(method.conversion) <= ours


def test_every_method_of_the_deployment_file_is_in_some_release() -> None:
    known = {method.method for each in RELEASES for method in each.speculation_methods}
    assert set(METHODS) <= known
