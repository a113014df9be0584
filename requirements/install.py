"""Set up the virtual environment from the lock files. Standard library only: nothing is installed yet.

``PDK_TORCH_INDEX`` names a package index with CPU-only builds of torch, which spares most of the download.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TARGET = ROOT / ".venv"
NEEDED = {"full": (5, 12), "cpu": (1, 4)}  # GB to download, GB of disk


def stop(message: str) -> None:
    """End with a message."""
    sys.exit(f"setup: {message}")


def check() -> str | None:
    """Whether this machine will do; returns the CPU-only index, if one is named."""
    if platform.system() != "Linux":
        stop(f"PDK's local engines need Linux (WSL2 counts), this is {platform.system()}")
    if sys.version_info < (3, 11):  # noqa: UP036 - the check is what this is for
        stop(f"Python 3.11 or newer is needed, this is {platform.python_version()}; name another one with `make PYTHON=python3.12 …`")
    index = os.environ.get("PDK_TORCH_INDEX")
    download, disk = NEEDED["cpu" if index else "full"]
    free = shutil.disk_usage(ROOT).free >> 30
    print(
        f"setup: {TARGET} is made from the lock files: up to {download} GB are downloaded (less what is cached), {disk} GB of disk are used"
    )
    if not index:
        print("setup: most of it are torch's CUDA libraries; PDK_TORCH_INDEX=<index with CPU-only builds of torch> spares them")
    if free < disk:
        stop(f"{ROOT} has {free} GB of free disk, {disk} GB are needed; make room or set PDK_TORCH_INDEX")
    return index


def run(*words: str) -> None:
    """Run a program; its failure ends the setup."""
    if subprocess.run(words, check=False).returncode:
        stop(f"{' '.join(words[:6])} … failed; is a package index reachable?")


def main() -> None:
    """Make the environment, install what is locked, then PDK itself."""
    index = check()
    if not (TARGET / "bin" / "python").exists():
        venv.create(TARGET, with_pip=True)
    python, uv = str(TARGET / "bin" / "python"), str(TARGET / "bin" / "uv")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(HERE / "uv.txt"))
    files = ["base", "dev", *([] if index else ["torch"])]
    install = (uv, "pip", "install", "--python", python)
    run(*install, "--require-hashes", "--no-deps", *(part for name in files for part in ("-r", str(HERE / f"{name}.txt"))))
    if index:
        version = re.search(r"^torch==(\S+)", (HERE / "torch.txt").read_text(), re.MULTILINE)
        assert version is not None
        run(*install, "--no-deps", "--index-url", index, f"torch=={version[1]}")
    run(*install, "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    print("setup: done")


if __name__ == "__main__":
    main()
