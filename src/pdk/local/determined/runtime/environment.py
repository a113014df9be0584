"""The Python environment of a trial.

An experiment without a startup hook and requirements runs in the project's own environment, mounted read-only. One with either gets an
environment layered over it: its own ``python`` and ``pip`` first on PATH and its own site-packages, with the project's as a
read-only base. It is kept under the hash of hook and requirements, so the next trial finds installed what this one installed.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import sysconfig
import tarfile
import threading
import venv
from dataclasses import dataclass
from pathlib import Path

from pdk.durable import sync
from pdk.kit.spec import Bind

BUILDING = threading.Lock()  # trials that start at once may need the same one
HOOK, REQUIREMENTS = "startup-hook.sh", "requirements.txt"
PIP = """#!{python}
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Environment:
    """Where a trial's python is and what must be mounted for it; `shared` is the project's own."""

    python: Path
    binds: tuple[Bind, ...]
    shared: bool = False


def key_of(archive: bytes) -> str | None:
    """Return the hash of what decides about an experiment's environment; None where nothing does."""
    digest, found = hashlib.sha256(), False
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as context:
        for member in sorted(context.getmembers(), key=lambda entry: entry.name):
            if member.name.removeprefix("./") in (HOOK, REQUIREMENTS) and (file := context.extractfile(member)):
                digest.update(member.name.encode() + b"\0" + file.read())
                found = True
    return digest.hexdigest()[:32] if found else None


def prepare(home: Path, archive: bytes) -> Environment:
    """Return the environment for an experiment's context; made when missing.

    Args:
        home: the folder that keeps layered environments.
    """
    base = Bind(Path(sys.prefix), sys.prefix, read_only=True)
    key = key_of(archive)
    if key is None:
        return Environment(Path(sys.executable), (base,), shared=True)
    target = home / f"{key}-{sys.version_info.major}.{sys.version_info.minor}"
    with BUILDING:
        if not (target / "ready").exists():
            shutil.rmtree(target, ignore_errors=True)
            _build(target)
    return Environment(target / "bin" / "python", (base, Bind(target, str(target))))


def _build(target: Path) -> None:
    venv.EnvBuilder(with_pip=False, symlinks=True).create(target)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(target), "platbase": str(target)}))
    bases = [path for path in sys.path if path.endswith("site-packages")]
    # addsitedir, unlike a bare path, also runs the base's own .pth files (editable installs)
    lines = [f"import site; site.addsitedir({path!r})" for path in bases]
    (site / "zz_base.pth").write_text("\n".join(lines) + "\n")
    for name in ("pip", "pip3"):
        script = target / "bin" / name
        script.write_text(PIP.format(python=target / "bin" / "python"))
        script.chmod(0o755)
    (target / "lock").touch()  # held by the trial whose hook runs (entry.sh)
    (target / "ready").touch()
    sync(target)
