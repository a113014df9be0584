"""The wheel alone: `pdk demo` where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from conftest import CHECKOUT


def test_the_demo_runs_from_an_installed_wheel(tmp_path):
    home = tmp_path / "environment"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(CHECKOUT)], check=True
    )
    venv.create(home, with_pip=True)
    site = next((home / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # those alone: a line of a .pth file does not read others
    wheel = next(tmp_path.glob("pdk-*.whl"))
    subprocess.run(
        [str(home / "bin/pip"), "install", "-q", "--no-deps", "--disable-pip-version-check", "--ignore-installed", str(wheel)], check=True
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PDK_", "PYTHON", "VIRTUAL_ENV"))}
    words = [str(home / "bin/python"), "-c", "import pdk.shipped as c; print(c.ROOT)"]
    where = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert Path(where.stdout.strip()).is_relative_to(home)
    done = subprocess.run([str(home / "bin/pdk"), "demo"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "demo: ok" in done.stdout
    assert not (tmp_path / ".pdk").exists() or not any(path.name.startswith("demo-") for path in (tmp_path / ".pdk").iterdir())
