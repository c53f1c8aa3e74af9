"""``toolkit keys``: API keys of the gateway, made, listed and taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import JsonOption
from toolkit.cli.output import print_json, print_table

KeyFile = Annotated[
    Path, typer.Option("--file", metavar="PATH", help="The file that gateway.keys names.")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Whose key: a team, a service.")]
_DEFAULT = Path("keys.yaml")


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Make, list and remove API keys.")
    group.command("add")(add)
    group.command("list")(list_keys)
    group.command("remove")(remove)
    app.add_typer(group, name="keys")


def add(
    identity: Id,
    file: KeyFile = _DEFAULT,
    request_class: Annotated[
        str | None, typer.Option("--class", help="Class of its requests.", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model that it may use; all if none.", show_default=False),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Prompt and answer together.", show_default=False)
    ] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    concurrent_tokens: Annotated[int | None, typer.Option(min=1, show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """Make a key. It is printed once; the file keeps only its hash.

    A running gateway takes it at once.
    """
    from toolkit.errors import SpecError
    from toolkit.gateway.guard import keys

    limits = keys.KeyLimits(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_requests=concurrent_requests,
        concurrent_tokens=concurrent_tokens,
    )
    new = keys.make(identity, request_class=request_class, models=tuple(model or ()), limits=limits)
    with keys.editing(file) as entries:
        if identity in entries:
            raise SpecError(
                f"there is a key {identity} already",
                where=str(file),
                hint=f"toolkit keys remove {identity} --file {file}, or choose another id",
            )
        entries[identity] = new.entry
    if json:
        print_json({"id": identity, "key": new.text, "file": str(file)})
        return
    typer.echo(new.text)
    typer.echo(f"kept as a hash in {file}; this key is not shown again", err=True)


def list_keys(file: KeyFile = _DEFAULT, json: JsonOption = False) -> None:
    """Show who has a key, and within which limits."""
    from toolkit.gateway.guard import keys

    entries = keys.read(file).values()
    if json:
        print_json([each.model_dump(mode="json", exclude={"sha256"}) for each in entries])
        return
    print_table(
        f"{len(entries)} keys in {file}",
        ("id", "class", "models", "limits"),
        (
            (
                each.id,
                each.request_class or "default",
                ", ".join(each.models) or "all",
                ", ".join(
                    f"{name.replace('_', ' ')} {value}"
                    for name, value in each.limits.model_dump(exclude_none=True).items()
                )
                or "none",
            )
            for each in entries
        ),
    )


def remove(identity: Id, file: KeyFile = _DEFAULT) -> None:
    """Take a key away; a running gateway refuses it from now on."""
    from toolkit.errors import SpecError
    from toolkit.gateway.guard import keys

    with keys.editing(file) as entries:
        if entries.pop(identity, None) is None:
            known = ", ".join(entries) or "none"
            raise SpecError(f"there is no key {identity}", where=str(file), hint=f"keys: {known}")
    typer.echo(f"removed {identity}")
