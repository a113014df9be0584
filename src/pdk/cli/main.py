"""The command `pdk`."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from pdk.cli import archives, doctor, local, pipelines, predictions, rollouts, runs, storage, trace, versioned
from pdk.cli.commands import program
from pdk.cli.common import exit_code
from pdk.errors import PdkError

MODULES = (local, versioned, pipelines, runs, storage, predictions, archives, rollouts, trace, doctor)  # each with its COMMANDS
app = program(command for module in MODULES for command in module.COMMANDS)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pdk {metadata.version('pdk')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)] = False,
) -> None:
    """A data commit becomes a prediction endpoint: commit, train, archive, serve, predict."""


def main() -> None:
    """Run; errors of ours become one message and an exit code."""
    try:
        app()
    except PdkError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(exit_code(error))
    except OSError as error:  # a file that is missing, an address that does not exist
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
