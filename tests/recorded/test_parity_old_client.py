"""python-pachyderm 7 needs protobuf 3: it runs in an environment of its own, made from requirements/python-pachyderm.txt."""

import json
import subprocess
from pathlib import Path

import pytest

from environments import environment_of


@pytest.fixture(scope="session")
def old_python():
    """The interpreter of an environment with python-pachyderm 7."""
    return environment_of("python-pachyderm")


def test_an_old_client(engine, recorded, old_python):
    words = [str(old_python), str(Path(__file__).with_name("old_client.py")), engine.host, str(engine.port), engine.project]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for step in json.loads(done.stdout):
        engine.transcript.steps.append(engine.transcript.mask(step) | {"call": step["call"]})
