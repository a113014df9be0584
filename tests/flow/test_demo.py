"""The demo as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import CHECKOUT


@pytest.mark.timeout(400)
def test_the_demo_ends_well(up, tmp_path):
    """Beside another installation: on ports of its own."""
    words = [str(Path(sys.executable).parent / "pdk"), "demo", "--state", str(tmp_path / "demo")]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=380, check=False, env={**os.environ, "KEEP": ""})
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 0, "\n".join(lines[-40:])
    assert lines[-1].startswith("demo: ok")
    assert "pdk up --state" in lines[-2]
    assert done.stdout.count('{"predictions":[1]}') == 2
    assert done.stdout.count('{"predictions":[0]}') == 2
    assert "0 failed" in done.stdout
    assert int(re.search(r"(\d+)% right \(an untrained", done.stdout)[1]) >= 95
    assert not subprocess.run(["pgrep", "-f", str(tmp_path / "demo")], capture_output=True, text=True, check=False).stdout


def test_a_demo_without_git_says_why(tmp_path):
    from pdk import demo

    environment = {**os.environ, "GIT_DIR": str(tmp_path)}
    code = "from pdk.demo import run; from pathlib import Path; import sys; sys.exit(not run(Path(sys.argv[1]), keep=False))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "demo: FAILED" in done.stdout.splitlines()[-2] or "demo: FAILED" in done.stdout
    assert demo.HOST
