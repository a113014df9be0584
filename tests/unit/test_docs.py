"""The docs name what exists."""

import re
import subprocess
from pathlib import Path

import pytest
import typer

from pdk.cli.main import app
from pdk.cluster import VARIABLES

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("platform", ["on-prem", "aws", "gcp"])
def test_guides_are_short_and_their_commands_are_shell(platform, tmp_path):
    text = (ROOT / "deploy" / platform / "README.md").read_text()
    assert len(text.splitlines()) <= 300
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 10
    (tmp_path / "guide.sh").write_text("\n".join(blocks))
    checked = subprocess.run(["bash", "-n", str(tmp_path / "guide.sh")], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    used = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", "\n".join(blocks)))
    given = (
        set(re.findall(r"(?:export |\s|^)([A-Z][A-Z_]+)=", "\n".join(blocks), re.MULTILINE)) | set(VARIABLES) | {"PWD", "PATH", "EDITOR"}
    )
    assert used - given <= ({"GPU_NODES"} if platform == "on-prem" else set())
    for target in re.findall(r"\bmake ([a-z]+)", "\n".join(blocks)):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    for path in re.findall(r"(?<=[ @])((?:deploy|pipelines|sample-data)/[\w./-]+)", "\n".join(blocks)):
        assert (ROOT / path).exists(), path
