"""Write the lock files: ``make lock`` keeps the versions that are locked, ``make lock UPGRADE=1`` takes the newest ones.

All with hashes: `base.txt` (what PDK runs on), `torch.txt` (torch and its CUDA libraries, which a CPU-only index can
replace), `dev.txt` (what tests and checks need beside), `uv.txt` (what installs them), and what tests and benchmarks make environments
of their own for: clients, tools and peers whose packages do not go together with ours. `containers/NAME/requirements.txt` are what
the images hold: the parts of the same locks that their `requirements.in` name; torch is installed from `torch.txt` in all of them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CONTAINERS = HERE.parent / "containers"
OPTIONS = ("--quiet", "--universal", "--python-version=3.11", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url")
ALONE = {
    "build": "hatchling",
    "uv": "uv",
    "python-pachyderm": "python-pachyderm==7.*",
    "torch-model-archiver": "torch-model-archiver==0.12.*",
    "torchserve": "torchserve==0.12.*",
    "kserve": "kserve==0.20.*",
}
UV = str(Path(sys.executable).parent / "uv")
UPGRADE = bool(os.environ.get("UPGRADE"))
TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")


def compiled(source: Path, *extra: str) -> list[str]:
    """One block of text for each locked package."""
    command = [UV, "pip", "compile", *OPTIONS, *extra, str(source)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.split(r"\n(?=[a-z0-9])", text.strip())


def kept(*names: str) -> list[str]:
    """Options that keep the versions of some lock files."""
    return [] if UPGRADE else [word for name in names for word in ("--constraint", str(HERE / f"{name}.txt"))]


def alone(name: str, package: str) -> str:
    """The lock of one package and what it needs."""
    command = [UV, "pip", "compile", *OPTIONS, *kept(name), "-"]
    return subprocess.run(command, input=f"{package}\n", check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Compile runtime and development together, so that they agree, and sort them into files."""
    project = HERE.parent / "pyproject.toml"
    locked = kept("base", "torch", "dev")
    every = compiled(project, "--extra", "dev", *locked)
    runtime = {block.partition("==")[0] for block in compiled(project, *locked)}
    files: dict[str, list[str]] = {"base": [], "torch": [], "dev": []}
    for block in every:
        name = "torch" if TORCH.match(block) else "base" if block.partition("==")[0] in runtime else "dev"
        files[name].append(block)
    for name, blocks in files.items():
        (HERE / f"{name}.txt").write_text("\n".join(blocks) + "\n")
    for name, package in ALONE.items():
        (HERE / f"{name}.txt").write_text(alone(name, package))
    same = [word for name in ("base", "torch") for word in ("--constraint", str(HERE / f"{name}.txt"))]
    for source in CONTAINERS.glob("*/requirements.in"):
        blocks = [block for block in compiled(source, *same) if not TORCH.match(block)]
        source.with_suffix(".txt").write_text("\n".join(blocks) + "\n")


if __name__ == "__main__":
    main()
