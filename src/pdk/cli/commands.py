"""What a command is, and how the commands of all modules become one program."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import typer

GROUPS = {  # the first of two words: what its help says before the second ones
    "create": "Create",
    "update": "Update",
    "list": "List",
    "inspect": "Show",
    "delete": "Delete",
    "put": "Put",
    "get": "Get",
    "glob": "Find by a pattern",
    "copy": "Copy",
    "diff": "Compare",
    "start": "Start",
    "finish": "Finish",
    "squash": "Take out of history",
    "drop": "Remove the newest, with what they changed",
    "stop": "Stop",
    "store": "Look into the local server's store",
    "archive": "Make, look into and try out model archives (.mar)",
    "rollout": "Turn a served model's versions forth and back",
}


@dataclass(frozen=True)
class Command:
    """A command of `pdk`.

    Args:
        words: what is typed: one word, or two of which the first is one of `GROUPS`.
        run: does it; its docstring is the command's help, its parameters are arguments and options.
    """

    words: str
    run: Callable[..., None]


def program(commands: Iterable[Command]) -> typer.Typer:
    """Return the program with these commands, in their order.

    Raises:
        ValueError: a first word that is no group, or two commands with the same words.
    """
    made = typer.Typer(
        name="pdk",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
    )
    groups, seen = dict[str, list[Command]](), set[str]()
    for command in commands:
        if command.words in seen:
            raise ValueError(f"two commands are called {command.words!r}")
        seen.add(command.words)
        first, _, second = command.words.partition(" ")
        if not second:
            made.command(first)(command.run)
        elif first in GROUPS:
            groups.setdefault(first, []).append(command)
        else:
            raise ValueError(f"{command.words!r}: {first!r} is no group; known are {', '.join(GROUPS)}")
    for name, does in GROUPS.items():
        by_noun = {command.words.partition(" ")[2]: command for command in groups.get(name, ())}
        group = typer.Typer(help=f"{does}: {', '.join(by_noun)}.", no_args_is_help=True)
        for noun, command in by_noun.items():
            group.command(noun)(command.run)
        if by_noun:
            made.add_typer(group, name=name)
    return made
