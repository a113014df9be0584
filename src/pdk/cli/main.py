"""The command `pdk`."""

from __future__ import annotations

import sys

import typer

from pdk.cli import archives, doctor, local, pipelines, predictions, rollouts, storage, trace, verbs, versioned
from pdk.cli.common import exit_code
from pdk.errors import PdkError

app = typer.Typer(
    name="pdk",
    help="A data commit becomes a prediction endpoint: commit, train, archive, serve, predict.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
local.register(app)
verbs.register(app)
pipelines.register(app)
storage.register(app)
predictions.register(app)
archives.register(app)
rollouts.register(app)
trace.register(app)
doctor.register(app)
COMMANDS = (versioned,)  # imported for what it puts under the verbs


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
