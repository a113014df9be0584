"""The commands as one program: nothing is missing, nothing is twice."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pdk.cli import main
from pdk.cli.commands import Command, program

HELPERS = {"__init__", "commands", "common", "main", "rows"}
runner = CliRunner()


def test_every_module_of_commands_is_listed():
    listed = {module.__name__.rpartition(".")[2] for module in main.MODULES}
    assert listed | HELPERS == {path.stem for path in Path(main.__file__).parent.glob("*.py")}


def test_every_command_says_what_it_does():
    made = typer.main.get_command(main.app)
    for module in main.MODULES:
        for command in module.COMMANDS:
            found = made
            for word in command.words.split():
                found = found.commands[word]
            assert found.help, command.words


def test_the_version_is_said():
    done = runner.invoke(main.app, ["--version"])
    assert done.exit_code == 0
    assert done.output.startswith("pdk 0.")


def nothing() -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("words", "said"), [(["list repo", "list repo"], "two commands are called 'list repo'"), (["lsit repo"], "'lsit' is no group")]
)
def test_wrong_tables(words, said):
    with pytest.raises(ValueError, match=said):
        program(Command(entry, nothing) for entry in words)
