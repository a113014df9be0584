"""Environments of their own for clients and peers whose packages do not go together with ours."""

import subprocess
import sys
import sysconfig

from conftest import CHECKOUT


def environment_of(name, *, ours=False):
    """The interpreter of an environment of its own with what requirements/NAME.txt locks; made when missing.

    With `ours` it finds this environment's packages too, behind its own.
    """
    lock, home = CHECKOUT / "requirements" / f"{name}.txt", CHECKOUT / ".venv" / "clients" / name
    python, stamp = home / "bin" / "python", home / "lock"
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        words = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
        subprocess.run(words, check=True)
        if ours:
            here, there = (sysconfig.get_path("purelib"), next((home / "lib").glob("python*/site-packages")))
            (there / "ours.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        stamp.write_text(lock.read_text())
    return python
