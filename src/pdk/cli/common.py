"""What all commands share: where the installation is, how errors end, how things are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdk.environment import default_state, named_determined, named_kubeconfig, named_pachyderm
from pdk.errors import AuthError, Conflict, EngineError, NotFound, PdkError, TemporaryError, UserError
from pdk.installation import Installation, is_loopback

if TYPE_CHECKING:
    from pdk.catalog import Catalog
    from pdk.engines.determined import Determined
    from pdk.engines.kserve import KServe
    from pdk.engines.pachyderm import Pachyderm

WIDE = 100_000  # columns where the output is no terminal: other programs read it, and a folded ID is none

EXIT_CODES: tuple[tuple[type[PdkError], int], ...] = (  # the first that fits counts; documented in docs/cli.md
    (NotFound, 3),
    (Conflict, 4),
    (UserError, 2),
    (AuthError, 5),
    (TemporaryError, 6),
    (EngineError, 1),
)

State = Annotated[Path | None, typer.Option("--state", help="Folder of the installation (default: $PDK_STATE, else ~/.local/state/pdk).")]
Project = Annotated[str, typer.Option("--project", envvar="PDK_PROJECT", help="Pachyderm project.")]
Output = Annotated[str, typer.Option("--output", "-o", help="table or json")]


def exit_code(error: PdkError) -> int:
    """Return the process's exit code for an error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def installation(state: Path | None) -> Installation:
    """Return the installation that a command talks to."""
    return Installation.load((state or default_state()).absolute())


def pachyderm(state: Path | None) -> Pachyderm:
    """Return the Pachyderm that a command talks to: that of the installation, or any other one that PACHD_ADDRESS names."""
    from pdk.engines.pachyderm import Pachyderm  # here and not above: the SDK takes a while to import

    other = named_pachyderm() if state is None else None
    if other is not None:
        return Pachyderm(*other)
    found = installation(state)
    return Pachyderm(found.host, found.ports.pachyderm, "" if is_loopback(found.bind) else found.secret())


def kserve(state: Path | None) -> KServe:
    """Return the Kubernetes that a command talks to: that of the installation, or any other one that KUBECONFIG names."""
    from pdk.engines.kserve import KServe

    return KServe(None if state is None and named_kubeconfig() else installation(state).kubeconfig)


def determined(state: Path | None) -> Determined:
    """Return the Determined that a command talks to: that of the installation, or any other one that DET_MASTER names."""
    from pdk.engines.determined import Determined

    return Determined(*master(state))


def master(state: Path | None) -> tuple[str, str, str]:
    """URL, user and password of that Determined."""
    if state is None and (named := named_determined()) is not None:
        return named
    found = installation(state)
    return f"http://{found.host}:{found.ports.determined}", "determined", found.secret()


def catalog(state: Path | None) -> Catalog:
    """Return the catalogue of the engines that a command talks to."""
    from pdk.catalog import Catalog, Engines

    return Catalog(Engines(lambda: pachyderm(state), lambda: determined(state), lambda: kserve(state), lambda: log_lines(state)))


def log_lines(state: Path | None) -> Iterable[str]:
    """Give the request log: the installation's files, or on a cluster what the predictors' pods printed."""
    from pdk.catalog.requests import lines_of

    if state is None and named_kubeconfig():
        try:
            own = str(installation(None).kubeconfig) == named_kubeconfig()
        except NotFound:
            own = False
        if not own:
            return kserve(None).pod_logs()
    return lines_of(installation(state).state / "kserve" / "requests")


def show(rows: Sequence[dict[str, Any]], output: str) -> None:
    """Print rows as a table, or as JSON."""
    if output == "json":
        typer.echo(json.dumps(list(rows), indent=1, default=str))
        return
    if output != "table":
        raise UserError(f"--output {output!r}: table or json is expected")
    from rich.console import Console  # here and not above: most commands need none
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0] if rows else ["nothing to show"]:
        table.add_column(name.upper(), overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)
