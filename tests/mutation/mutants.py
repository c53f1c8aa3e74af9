"""Small wrong changes to what is recorded of NVIDIA's releases, and to the templates.

A mutant changes one name, type, default or number, to something that could have been meant: a
letter is lost, an INT32 becomes an INT64, a choice is left out. Prose and provenance stay as they
are (``PROSE``), since no test can know them better than the table does.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

TABLES = "toolkit/releases/tables"
CONTRACTS = "toolkit/repository/contracts"
TEMPLATES = "model_repo_templates"

PROSE = frozenset(
    {"meaning", "note", "notes", "sources", "commit", "released", "origin", "deprecated"}
)
DATA_KEYS = frozenset(
    {"input_map", "output_map", "terms", "conversion", "requires", "values", "cautions",
     "kv_cache_needs", "features"}
)  # fmt: skip
"""Objects whose keys are names of the release, not of the table's form."""

DTYPES = ("TYPE_BOOL", "TYPE_INT32", "TYPE_INT64", "TYPE_UINT64", "TYPE_FP16", "TYPE_FP32",
          "TYPE_STRING")  # fmt: skip
KINDS = ("bool", "int", "float", "text", "choice", "ints", "floats", "texts", "mapping", "object")
FORMATS = ("none", "fp8", "int4_awq", "w4a8_awq", "int8_sq", "nvfp4")
DOMAINS: dict[str, Sequence[str]] = {
    "dtype": DTYPES,
    "dtype_choices": DTYPES,
    "kind": KINDS,
    "metrics.kind": ("gauge", "counter", "histogram"),
    "group": ("general", "logits", "lora", "speculation", "auto_parallel", "plugins"),
    "runtime": ("tensorrt", "pytorch"),
    "runtimes": ("tensorrt", "pytorch"),
    "weights": FORMATS,
    "kv_cache": ("none", "fp8", "int8", "nvfp4"),
    "kv_cache_needs": FORMATS,
    "checked": ("tag", "documentation", "near"),
}
"""Where a value is one of few: another of them, which the table's own types let pass."""

_SYNTAX = frozenset(
    {"if", "elif", "else", "endif", "for", "endfor", "in", "macro", "endmacro", "from", "import",
     "not", "is", "none"}
)  # fmt: skip
_TOKEN = re.compile(r"[A-Za-z_]\w*(?:\.j2)?|-?\d+")

Path_: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class Mutant:
    """One file with one change.

    Attributes:
        file: Below the repository's root.
        place: JSON path, or line and column.
        sort: What was changed, such as ``triton_models.dtype``.
    """

    file: str
    place: str
    sort: str
    before: str
    after: str
    text: str = field(repr=False)

    @property
    def group(self) -> str:
        """The part of the records that it belongs to."""
        return self.sort.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file} {self.place}: {self.before} -> {self.after} ({self.sort})"


@dataclass(frozen=True)
class Site:
    """Where something can be changed, and how."""

    file: str
    sort: str
    change: Callable[[random.Random], Mutant | None] = field(repr=False)

    @property
    def group(self) -> str:
        """The part of the records that it belongs to."""
        return self.sort.partition(".")[0]


def sites(root: Path) -> list[Site]:
    """All of them, in a fixed order."""
    found: list[Site] = []
    for folder in (TABLES, CONTRACTS):
        for file in sorted((root / folder).rglob("*.json")):
            group = "contracts" if folder == CONTRACTS else file.stem
            found += _json_sites(root, file, group)
    for file in sorted((root / TEMPLATES).rglob("*.j2")):
        found += _template_sites(root, file)
    return found


def draw(root: Path, count: int, seed: int, groups: Sequence[str] = ()) -> list[Mutant]:
    """``count`` different mutants.

    Groups take turns, and so do the files within one: small ones are met too.
    """
    rng = random.Random(seed)
    by_group: dict[str, list[Site]] = {}
    for site in sites(root):
        if not groups or site.group in groups:
            by_group.setdefault(site.group, []).append(site)
    for group, members in by_group.items():
        rng.shuffle(members)
        by_group[group] = _taking_turns(members)
    drawn: list[Mutant] = []
    while len(drawn) < count and any(by_group.values()):
        for members in by_group.values():
            mutant = _next(members, rng)
            if mutant is not None and len(drawn) < count:
                drawn.append(mutant)
    return drawn


def _taking_turns(members: list[Site]) -> list[Site]:
    by_file: dict[str, list[Site]] = {}
    for site in members:
        by_file.setdefault(site.file, []).append(site)
    rounds = itertools.zip_longest(*by_file.values())
    # They are taken from the end.
    return [site for each in rounds for site in each if site is not None][::-1]


def _next(members: list[Site], rng: random.Random) -> Mutant | None:
    while members:
        mutant = members.pop().change(rng)
        if mutant is not None:
            return mutant
    return None


def misspelt(text: str, rng: random.Random) -> str:
    """``text`` with a letter lost, doubled or changed places."""
    at = rng.randrange(len(text))
    ways = [text[:at] + text[at] + text[at:]]
    if len(text) > 1:
        ways.append(text[:at] + text[at + 1 :])
    if at + 1 < len(text) and text[at] != text[at + 1]:
        ways.append(text[:at] + text[at + 1] + text[at] + text[at + 2 :])
    return rng.choice(ways)


# JSON


def _json_sites(root: Path, file: Path, group: str) -> Iterator[Site]:
    place = str(file.relative_to(root))
    content = json.loads(file.read_text(encoding="utf-8"))
    for path in _leaves(content, ()):
        yield _json_site(place, content, path, f"{group}.{_sort(path)}")


def _leaves(value: Any, path: Path_) -> Iterator[Path_]:
    """Paths of values; of a key that is itself a name, the path with ``#key`` behind it."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in PROSE or key == "$drop":
                continue
            if _owner(path) in DATA_KEYS and not key.startswith("$"):
                yield (*path, key, "#key")
            if _owner(path) != "cautions":  # what they say is prose
                yield from _leaves(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _leaves(below, (*path, index))
    elif value is not None:
        yield path


def _owner(path: Path_) -> str:
    """The nearest name of the table's form above a path."""
    names = [part for part in path if isinstance(part, str) and part != "$replace"]
    if len(names) > 1 and names[-2] == "values":  # two levels of names
        return "values"
    return names[-1] if names else ""


def _sort(path: Path_) -> str:
    names = [str(part) for part in path if isinstance(part, str) and part != "$replace"]
    for name in names:
        if names[-1] == "#key" and name in DATA_KEYS:
            return f"{name} key"
        if name in DATA_KEYS - {"features"}:
            return name
    return names[-1]


def _json_site(place: str, content: Any, path: Path_, sort: str) -> Site:
    def change(rng: random.Random) -> Mutant | None:
        copy = json.loads(json.dumps(content))
        *above, last = path if path[-1] != "#key" else path[:-1]
        holder = copy
        for part in above:
            holder = holder[part]
        if path[-1] == "#key":
            before, after = str(last), misspelt(str(last), rng)
            renamed = {(after if key == last else key): item for key, item in holder.items()}
            if len(renamed) < len(holder):
                return None
            holder.clear()
            holder.update(renamed)
        else:
            before = holder[last]
            after = _other(before, sort, rng)
            if isinstance(holder, list) and not isinstance(before, int) and rng.random() < 0.3:
                after = "(left out)"
                del holder[int(last)]
            else:
                holder[last] = after
        text = json.dumps(copy, indent=1, ensure_ascii=False)
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
        return Mutant(place, _named(content, path) + where, sort, str(before), str(after), text)

    return Site(place, sort, change)


def _other(value: Any, sort: str, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if value != -1 else 1
    if isinstance(value, float):
        return value + 0.5
    if not value:
        return "x"
    domain = DOMAINS.get(sort) or DOMAINS.get(sort.partition(".")[2], ())
    if value in domain:
        return rng.choice([each for each in domain if each != value])
    return misspelt(value, rng)


def _named(content: Any, path: Path_) -> str:
    """The names of the entries that a path leads through, for the report."""
    names = []
    for part in path:
        if part == "#key":
            break
        content = content[part]
        if isinstance(content, dict) and "name" in content:
            names.append(str(content["name"]))
    return "/".join(names)


# Templates


def _template_sites(root: Path, file: Path) -> Iterator[Site]:
    place = str(file.relative_to(root))
    text = file.read_text(encoding="utf-8")
    plain = re.sub(r"\{#.*?#\}|^#[^\n]*$", lambda m: " " * len(m[0]), text, flags=re.S | re.M)
    # Comments are rendered too; what they are filled with is not theirs alone.
    for found in _TOKEN.finditer(plain):
        if found[0] not in _SYNTAX:
            yield _template_site(place, text, found.start(), found[0])


def _template_site(place: str, text: str, start: int, token: str) -> Site:
    before = text[:start]
    line, column = before.count("\n") + 1, start - (before.rfind("\n") + 1) + 1
    inside = max(before.rfind("{{"), before.rfind("{%")) > max(
        before.rfind("}}"), before.rfind("%}")
    )
    sort = "templates.expression" if inside else "templates.text"

    def change(rng: random.Random) -> Mutant | None:
        after = _other_token(token, rng)
        changed = before + after + text[start + len(token) :]
        return Mutant(place, f"{line}:{column}", sort, token, after, changed)

    return Site(place, sort, change)


def _other_token(token: str, rng: random.Random) -> str:
    swaps = {"true": "false", "KIND_CPU": "KIND_GPU", "REJECT": "DELAY"}
    if token in swaps:
        return swaps[token]
    if token.lstrip("-").isdigit():
        return str(int(token) + 1)
    return misspelt(token, rng)
