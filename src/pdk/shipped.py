"""Where the files beside the package are: the containers' programs, the examples' code, specs and data.

In a checkout they lie at its top; a wheel brings them along (``pyproject.toml`` says where).
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pdk.errors import UserError

_HERE, _WHEEL = Path(__file__).resolve().parents[2], Path(__file__).resolve().parent / "_shipped"
ROOT = _HERE if (_HERE / "containers").is_dir() else _WHEEL


@dataclass(frozen=True)
class Repository:
    """A git repository with the examples' code, at a commit; `changed` where the working tree of the code differs from it."""

    path: Path
    sha: str
    changed: bool


def _git(folder: Path, *words: str) -> str:
    """Output of git in a folder.

    Raises:
        UserError: git failed, in its own words.
    """
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed; experiments are fetched with it, so install it") from None
    if done.returncode:
        raise UserError(
            f"git {words[0]} in {folder} failed: {done.stderr.strip()}; the demo trains code from a git repository with a commit"
        )
    return done.stdout.strip()


def repository(scratch: Path) -> Repository:
    """Return the checkout itself; where there is none, a new repository in `scratch` that holds the experiments.

    Raises:
        UserError: git is missing, or fails.
    """
    if (ROOT / ".git").exists():
        return Repository(ROOT, _git(ROOT, "rev-parse", "HEAD"), bool(_git(ROOT, "status", "--porcelain", "--", "experiments")))
    shutil.copytree(ROOT / "experiments", scratch / "experiments", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    _git(scratch, "init", "--quiet", "--initial-branch=main")
    _git(scratch, "add", "experiments")
    if _git(scratch, "status", "--porcelain"):
        _git(scratch, "-c", "user.name=PDK", "-c", "user.email=pdk@localhost", "commit", "--quiet", "-m", "The examples' experiments")
    return Repository(scratch, _git(scratch, "rev-parse", "HEAD"), changed=False)
