"""Options in groups reach the command as the dataclass that declares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from toolkit.cli.flags import grouped

seen: list[object] = []


@dataclass(frozen=True)
class Size:
    name: Annotated[str, typer.Argument(metavar="NAME")]
    width: Annotated[int, typer.Option("--width", "-w", min=1)] = 3


@dataclass(frozen=True)
class Colour:
    shade: Annotated[list[str] | None, typer.Option("--shade")] = None


@dataclass(frozen=True)
class Other:
    width: Annotated[int, typer.Option("--wide")] = 1


def paint(
    size: Size, colour: Colour, loud: Annotated[bool, typer.Option("--loud")] = False
) -> None:
    """Paint it."""
    seen.append((size, colour, loud))


def clash(size: Size, other: Other) -> None:
    """Two groups that both have a width."""


def called(*words: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(grouped(paint))
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_fields_are_options_and_arrive_as_groups() -> None:
    seen.clear()
    assert called("box", "-w", "5", "--shade", "red", "--shade", "blue", "--loud") == (0, "")
    assert seen == [(Size("box", 5), Colour(["red", "blue"]), True)]


def test_defaults_are_the_dataclass_defaults() -> None:
    seen.clear()
    assert called("box")[0] == 0
    assert seen == [(Size("box", 3), Colour(None), False)]


def test_a_field_keeps_its_limits_and_help() -> None:
    assert called("box", "--width", "0")[0] == 2
    assert called()[0] == 2
    help_text = called("--help")[1]
    assert "Paint it." in help_text
    assert "width" in help_text


def test_two_groups_with_the_same_field_are_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        grouped(clash)
