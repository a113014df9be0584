"""Whether an archive would serve: its handler is imported and answers one example, in a process of its own.

``python -m pdk.serving.check ARCHIVE [EXAMPLE]`` prints one JSON object, ``{"predictions": …}`` or ``{"error": …}``. What an archive
holds is somebody's code: it runs with the rights of whoever calls this, but not in the caller's process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdk.errors import PdkError, UserError

LIMIT_S = 300.0  # until an archive's trial is given up


def check(archive: Path, example: Path | None = None, timeout_s: float = LIMIT_S) -> list[Any]:
    """Import an archive's handler and have it answer an example; the predictions, empty without one.

    Args:
        example: a file with a request of the V1 protocol, ``{"instances": […]}``.

    Raises:
        UserError: it does not, with the reason.
    """
    words = [sys.executable, "-P", "-m", "pdk.serving.check", str(archive), *([str(example)] if example else [])]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise UserError(f"{archive.name} was not loaded and asked within {timeout_s:g} s") from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise UserError(f"{archive.name} brought its process down: {said[-1]}") from None
    if "error" in answer:
        raise UserError(f"{archive.name}: {answer['error']}")
    return list(answer["predictions"])


def answer(archive: Path, example: Path | None, scratch: Path) -> list[Any]:
    """Return what the handler makes of the example, in this process.

    Raises:
        UserError: the archive or its handler is broken, or the example is.
    """
    from pdk.serving.model import Model

    model = Model(archive, archive, scratch)
    return [] if example is None else model.ask(example)


def main(arguments: Sequence[str]) -> None:
    """Check one archive."""
    archive, *rest = (Path(word) for word in arguments)
    with tempfile.TemporaryDirectory(prefix="pdk-check-") as scratch:
        try:
            made: dict[str, Any] = {"predictions": answer(archive, rest[0] if rest else None, Path(scratch))}
        except PdkError as error:
            made = {"error": str(error)}
    print(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1:])
