"""The requirements of a handler: locked when an archive is made, compared with what is installed when it is served.

Nothing is installed at the start of a server: what a model ran with when it was packaged is what it must find.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from pdk.errors import UserError

LIMIT_S = 600.0  # until pip's answer is given up


def parsed(text: str) -> list[Requirement]:
    """Return the requirements of a file, without options and hashes.

    Raises:
        UserError: a line is none.
    """
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        spelled = re.split(r"\s--|(?:^|\s)#", line)[0].strip()
        if not spelled or spelled.startswith("-"):
            continue
        try:
            found.append(Requirement(spelled))
        except InvalidRequirement as error:
            raise UserError(f"the requirement {spelled!r} cannot be read: {error}") from error
    return found


def is_locked(text: str) -> bool:
    """Return whether every requirement names one version with its hashes."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.strip().startswith("#")]
    return bool(lines) and all("==" in line and "--hash=" in line for line in lines)


def lock(path: Path) -> bytes:
    """Return a requirements file with every package that it leads to, each with its version and hash, for this platform and Python.

    Raises:
        UserError: pip finds no versions that go together, or no index.
    """
    text = path.read_text()
    if is_locked(text):
        return text.encode()
    words = [sys.executable, "-P", "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--disable-pip-version-check",
             "--report", "-", "-r", str(path)]  # fmt: skip
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise UserError(f"pip did not resolve {path} within {LIMIT_S:g} s") from None
    if done.returncode:
        raise UserError(f"pip cannot resolve {path}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'it says nothing'}")
    found = []
    for entry in json.loads(done.stdout)["install"]:
        hashes = (entry["download_info"].get("archive_info") or {}).get("hashes") or {}
        if "sha256" not in hashes:
            raise UserError(f"{path}: {entry['metadata']['name']} comes from no package that could be locked; name a released version")
        found.append(f"{entry['metadata']['name'].lower()}=={entry['metadata']['version']} \\\n    --hash=sha256:{hashes['sha256']}\n")
    return "".join(sorted(found)).encode()


def check(text: str) -> list[str]:
    """Return what of an archive's requirements differs from what is installed here, in words; empty where nothing does.

    Raises:
        UserError: a package is missing.
    """
    different = []
    for wanted in parsed(text):
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue  # for another platform
        try:
            present = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            what = f"the model needs {wanted.name}{wanted.specifier}, which is not installed where it is to be served"
            raise UserError(f"{what}; add it to the serving image") from None
        if not wanted.specifier.contains(present, prereleases=True):
            different.append(f"{wanted.name}{wanted.specifier} was asked for, and {present} is installed")
    return different
