"""`pdk trace`: from a prediction to the data behind it, and from data to predictions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from pdk.cli.common import Output, State, determined, installation, kserve, pachyderm
from pdk.errors import NotFound, PdkError
from pdk.settings import named_kubeconfig


def log_lines(state: Path | None) -> Iterable[str]:
    """The request log: the installation's files, or on a cluster what the predictors' pods printed."""
    from pdk.trace import lines_of

    if state is None and named_kubeconfig():
        try:
            own = str(installation(None).kubeconfig) == named_kubeconfig()
        except NotFound:
            own = False
        if not own:
            return kserve(None).pod_logs()
    return lines_of(installation(state).state / "kserve" / "requests")


def trace(
    what: Annotated[str, typer.Argument(help="A request ID (x-request-id), MODEL, MODEL@VERSION, or a data commit.")],
    state: State = None,
    output: Output = "table",
) -> None:
    """Show the chain from a prediction to the files that its model learned from, or from a commit to what serves it."""
    from pdk.trace import Engines, Trace, counted

    def lines() -> Iterable[str]:
        try:
            yield from log_lines(state)
        except PdkError as error:
            typer.secho(f"the request log cannot be read: {error}", fg="yellow", err=True)

    engines = Engines(pachyderm(state), determined(state), kserve(state))
    found = Trace(engines, counted(lines())).find(what, lines)
    if output == "json":
        typer.echo(json.dumps(found, indent=1, default=str))
        return
    for number, node in enumerate(found):
        typer.echo("\n" * bool(number) + "\n".join(spelled(node)))


def spelled(node: dict[str, Any], indent: str = "") -> Iterable[str]:
    """A node as indented lines."""
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


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trace)
