"""The options of ``toolkit plan`` that ask for times, loads and prices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

GpusOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="Model of GPU, such as H100; serving.gpu, or this machine's, if absent. With --rate "
        "several may be given; all with a price are tried if none is.",
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate",
        min=1e-3,
        help="Requests a second at the peak: find the cheapest deployment that carries them.",
        show_default=False,
    ),
]
PromptOption = Annotated[
    int | None,
    typer.Option("--prompt-tokens", min=1, help="Tokens of a prompt.", show_default="1000"),
]
OutputOption = Annotated[
    int | None,
    typer.Option("--output-tokens", min=1, help="Tokens of an answer.", show_default="250"),
]
TtftOption = Annotated[
    float | None,
    typer.Option(
        "--slo-ttft-ms", min=0, help="Mean time to the first token, at most.", show_default=False
    ),
]
TpotOption = Annotated[
    float | None,
    typer.Option(
        "--slo-tpot-ms", min=0, help="Mean time between tokens, at most.", show_default=False
    ),
]
ReuseOption = Annotated[
    float,
    typer.Option("--reuse", min=0, max=1, help="Share of a prompt's tokens found in the KV cache."),
]
AcceptanceOption = Annotated[
    float | None,
    typer.Option(
        "--acceptance",
        min=0,
        max=1,
        help="Chance that a drafted token is accepted, where the file speculates.",
        show_default=False,
    ),
]
PricesOption = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="Own table of prices (YAML), in place of the list prices that come along.",
        show_default=False,
    ),
]
KeepOption = Annotated[
    bool, typer.Option("--keep-formats", help="Search with the file's number formats only.")
]
CalibrateOption = Annotated[
    Path | None,
    typer.Option(
        "--calibrate",
        metavar="REPORT",
        help="A report of toolkit bench on this deployment: fit the estimates to it.",
        show_default=False,
    ),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write the plan as a page with charts: memory, frontier, costs.",
        show_default=False,
    ),
]
