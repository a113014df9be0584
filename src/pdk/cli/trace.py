"""`pdk trace`: from a prediction to the data behind it, and from data to predictions."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from pdk.cli.commands import Command
from pdk.cli.common import Output, State, catalog
from pdk.errors import PdkError


def trace(
    what: Annotated[str, typer.Argument(help="A request ID (x-request-id), MODEL, MODEL@VERSION, or a data commit.")],
    state: State = None,
    output: Output = "table",
) -> None:
    """Show the chain from a prediction to the files that its model learned from, or from a commit to what serves it."""
    from pdk.catalog.requests import counted
    from pdk.catalog.trace import Trace

    asked = catalog(state)
    try:
        answered = counted(asked.engines.log())
    except PdkError as error:
        typer.secho(f"the request log cannot be read: {error}", fg="yellow", err=True)
        answered = Counter()
    found = Trace(asked, answered).find(what)
    if output == "json":
        typer.echo(json.dumps(found, indent=1, default=str))
        return
    for number, node in enumerate(found):
        typer.echo("\n" * bool(number) + "\n".join(spelled(node)))


def spelled(node: dict[str, Any], indent: str = "") -> Iterable[str]:
    """Give a node as indented lines."""
    for key, value in node.items():
        if value in (None, [], {}):
            continue
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from spelled(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{key}:"
            lines = ([" ".join(str(part) for part in entry.values())] if isinstance(entry, dict) else [str(entry)] for entry in value)
            yield from (f"{indent}  {line}" for line in itertools.chain.from_iterable(lines))
        else:
            yield f"{indent}{key + ':':12} {value}"


COMMANDS = (Command("trace", trace),)
