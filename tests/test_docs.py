"""The docs name what exists."""

import re
from pathlib import Path

import typer

from pdk.cli.main import app

ROOT = Path(__file__).parents[1]


def known():
    """All commands, as tuples of words."""
    found = set()

    def walk(command, words):
        found.add(words)
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def test_commands_in_the_readme_exist():
    commands = known()
    used = re.findall(r"^(?:\.venv/bin/)?pdk ([a-z]+)(?: ([a-z]+))?", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(used) >= 7
    for first, second in used:
        assert (first,) in commands
        assert (first, second) in commands or not any(words[:1] == (first,) and len(words) > 1 for words in commands)


def test_links_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)$", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
