"""What the models say about a field: where it stands, what it takes, how its values look."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from toolkit.spec.section import Looks, Section


@dataclass(frozen=True, slots=True)
class Slot:
    """One type in the file, taken apart: a field's, a list item's or a mapping value's.

    Attributes:
        annotation: The type without ``Annotated`` and ``None``.
        metadata: What annotates it: bounds, :class:`Looks` ...
        discriminator: The field that tells which of several sections it is.
    """

    annotation: Any
    metadata: tuple[Any, ...] = ()
    optional: bool = False
    discriminator: str | None = None
    description: str | None = None

    @property
    def sections(self) -> tuple[type[Section], ...]:
        """The models that it may be."""
        if isinstance(self.annotation, type) and issubclass(self.annotation, Section):
            return (self.annotation,)
        return tuple(
            arg
            for arg in get_args(self.annotation)
            if _is_union(self.annotation) and isinstance(arg, type) and issubclass(arg, Section)
        )

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a Literal."""
        return get_args(self.annotation) if get_origin(self.annotation) is Literal else ()

    @property
    def key(self) -> Slot | None:
        """The keys of a mapping with free names."""
        return slot(get_args(self.annotation)[0]) if get_origin(self.annotation) is dict else None

    @property
    def item(self) -> Slot | None:
        """The values of such a mapping, or the items of a list."""
        if get_origin(self.annotation) is dict:
            return slot(get_args(self.annotation)[1])
        if get_origin(self.annotation) is tuple:
            return slot(get_args(self.annotation)[0])
        return None

    def looks(self) -> str:
        """What it takes, in words."""
        for note in self.metadata:
            if isinstance(note, Looks):
                return note.text
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.sections:
            return "a section"
        if self.key:
            return "a section of named parts"
        if self.item:
            return f"a list, each item {self.item.looks()}"
        if self.annotation in _NUMBERS:
            return _NUMBERS[self.annotation] + self._bounds()
        return "true or false" if self.annotation is bool else "a text"

    def _bounds(self) -> str:
        low, high = self._bound("ge"), self._bound("le")
        if low is not None and high is not None:
            return f" from {low} to {high}"
        words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
        said = [(word, self._bound(name)) for name, word in words.items()]
        return "".join(f" {word} {limit}" for word, limit in said if limit is not None).replace(
            " at most", ", at most"
        )

    def _bound(self, name: str) -> Any:
        found = [getattr(n, name) for n in self.metadata if isinstance(n, _BOUNDS[name])]
        return found[0] if found else None


_NUMBERS = {int: "a whole number", float: "a number"}
_BOUNDS: Mapping[str, Any] = {
    "ge": annotated_types.Ge,
    "gt": annotated_types.Gt,
    "le": annotated_types.Le,
    "lt": annotated_types.Lt,
}


def field_slot(info: FieldInfo) -> Slot:
    """The slot of a model's field."""
    inner = slot(info.annotation)
    discriminator = info.discriminator if isinstance(info.discriminator, str) else None
    return Slot(
        inner.annotation,
        (*info.metadata, *inner.metadata),
        inner.optional,
        discriminator or inner.discriminator,
        info.description,
    )


def slot(annotation: Any) -> Slot:
    """The slot of a type, its annotations and ``None`` taken off."""
    if get_origin(annotation) is Annotated:
        base, *notes = get_args(annotation)
        inner = slot(base)
        infos = [note for note in notes if isinstance(note, FieldInfo)]
        found = [i.discriminator for i in infos if isinstance(i.discriminator, str)]
        metadata = [m for note in notes for m in (note.metadata if note in infos else [note])]
        return Slot(
            inner.annotation,
            (*metadata, *inner.metadata),
            inner.optional,
            found[0] if found else inner.discriminator,
        )
    if _is_union(annotation):
        members = [arg for arg in get_args(annotation) if arg is not type(None)]
        optional = len(members) < len(get_args(annotation))
        if len(members) == 1:
            inner = slot(members[0])
            return Slot(inner.annotation, inner.metadata, optional, inner.discriminator)
        return Slot(annotation, optional=optional)
    return Slot(annotation)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def tags(parent: Slot) -> dict[str, type[Section]]:
    """The models of a section with a discriminator, by its value."""
    if parent.discriminator is None:
        return {}
    found: dict[str, type[Section]] = {}
    for model in parent.sections:
        for tag in field_slot(model.model_fields[parent.discriminator]).choices:
            found[tag] = model
    return found


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a pydantic error points.

    Attributes:
        path: Keys and indices in the file, without pydantic's union tags.
        slot: What stands there; None for an unknown key.
        parent: The models that may hold the last step of the path.
        is_key: The key itself is wrong, not its value.
    """

    path: tuple[str | int, ...]
    slot: Slot | None
    parent: tuple[type[Section], ...]
    is_key: bool = False


def locate(root: type[Section], loc: Sequence[str | int]) -> Spot:
    """The spot of a pydantic error's ``loc`` in a file that ``root`` describes."""
    is_key = bool(loc) and loc[-1] == "[key]"
    path: list[str | int] = []
    above: Slot | None = None
    here: Slot | None = Slot(root)
    for step in loc[:-1] if is_key else loc:
        if here is not None and step in (by_tag := tags(here)):
            here = Slot(by_tag[str(step)])
            continue
        path.append(step)
        if here is not None:
            above = here
            here = here.item or _member(here.sections, str(step))
    if is_key:
        here = above.key if above else None
    return Spot(tuple(path), here, above.sections if above else (), is_key)


def _member(models: tuple[type[Section], ...], name: str) -> Slot | None:
    for model in models:
        if name in model.model_fields:
            return field_slot(model.model_fields[name])
    return None


@dataclass(frozen=True, slots=True)
class Known:
    """A field that exists somewhere: its name, the section that holds it, and the section's tag."""

    name: str
    section: str
    tag: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.section} (method {self.tag})" if self.tag else self.section or "the top level"
        )


def known_fields(root: type[Section]) -> list[Known]:
    """Every field of the file."""
    return list(_known(Slot(root), "", None))


def _known(here: Slot, section: str, tag: str | None) -> Iterator[Known]:
    by_tag = {model: name for name, model in tags(here).items()}
    for model in here.sections:
        for name, info in model.model_fields.items():
            mark = by_tag.get(model, tag)
            yield Known(name, section, mark)
            child = field_slot(info)
            below = f"{section}.{name}" if section else name
            if child.sections:
                yield from _known(child, below, None)
            elif child.item and child.item.sections:
                yield from _known(child.item, f"{below}.<name>", None)
