"""Write the lock files anew: ``python requirements/lock.py`` (needs uv).

All with hashes: `base.txt` (what PDK runs on), `torch.txt` (torch and its CUDA libraries, which a CPU-only index can
replace), `dev.txt` (what tests and checks need beside), `uv.txt` (what installs them), and what tests and benchmarks make environments
of their own for: clients, tools and peers whose packages do not go together with ours.
"""

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = ("--quiet", "--universal", "--python-version=3.11", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url")
ALONE = {
    "uv": "uv",
    "python-pachyderm": "python-pachyderm==7.*",
    "torch-model-archiver": "torch-model-archiver==0.12.*",
    "torchserve": "torchserve==0.12.*",
    "kserve": "kserve==0.20.*",
}
TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")


def compiled(*extra: str) -> list[str]:
    """One block of text for each locked package."""
    command = ["uv", "pip", "compile", *OPTIONS, *extra, str(HERE.parent / "pyproject.toml")]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.split(r"\n(?=[a-z0-9])", text.strip())


def alone(package: str) -> str:
    """The lock of one package and what it needs."""
    command = ["uv", "pip", "compile", *OPTIONS, "-"]
    return subprocess.run(command, input=f"{package}\n", check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Compile runtime and development together, so that they agree, and sort them into files."""
    every, runtime = compiled("--extra", "dev"), {block.partition("==")[0] for block in compiled()}
    files: dict[str, list[str]] = {"base": [], "torch": [], "dev": []}
    for block in every:
        name = "torch" if TORCH.match(block) else "base" if block.partition("==")[0] in runtime else "dev"
        files[name].append(block)
    for name, blocks in files.items():
        (HERE / f"{name}.txt").write_text("\n".join(blocks) + "\n")
    for name, package in ALONE.items():
        (HERE / f"{name}.txt").write_text(alone(package))


if __name__ == "__main__":
    main()
