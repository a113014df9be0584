"""python-pachyderm 7 needs protobuf 3: it runs in an environment of its own, made from requirements/python-pachyderm.txt."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LOCK = CHECKOUT / "requirements" / "python-pachyderm.txt"


@pytest.fixture(scope="session")
def old_python(tmp_path_factory):
    """The interpreter of an environment with python-pachyderm 7."""
    home = CHECKOUT / ".venv" / "clients" / "python-pachyderm"
    python, stamp = home / "bin" / "python", home / "lock"
    if not stamp.exists() or stamp.read_text() != LOCK.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        words = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", str(LOCK)]
        subprocess.run(words, check=True)
        stamp.write_text(LOCK.read_text())
    return python


def test_an_old_client(engine, recorded, old_python):
    words = [str(old_python), str(Path(__file__).with_name("old_client.py")), engine.host, str(engine.port), engine.project]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for step in json.loads(done.stdout):
        engine.transcript.steps.append(engine.transcript.mask(step) | {"call": step["call"]})
