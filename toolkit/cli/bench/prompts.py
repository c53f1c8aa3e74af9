"""What is asked: lengths, seed, tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.bench.changes import change
from toolkit.spec.overrides import Override

PANEL = "Workload"


@dataclass(frozen=True)
class PromptFlags:
    """The workload's settings that have a flag of their own."""

    seed: Annotated[
        int | None,
        typer.Option(
            help="Of prompts and arrivals; default: another each time, as the server's cache "
            "still holds the last prompts.",
            rich_help_panel=PANEL,
        ),
    ] = None
    prompt_tokens: Annotated[
        int | None, typer.Option(help="Length of prompts.", rich_help_panel=PANEL)
    ] = None
    output_tokens: Annotated[
        int | None, typer.Option(help="Length of answers.", rich_help_panel=PANEL)
    ] = None
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="tokenizer.json or its folder; default: the deployment's, else words are counted.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def changes(self) -> Iterator[Override]:
        """What they change in the scenario."""
        yield from change("--seed", "seed", self.seed)
        yield from change("--prompt-tokens", "workload.prompt_tokens", self.prompt_tokens)
        yield from change("--output-tokens", "workload.output_tokens", self.output_tokens)
