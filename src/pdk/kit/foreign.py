"""Reads what programs wrote: regular files only, without following a link, without waiting for a pipe, within bounds."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

NOTE_LIMIT = 64 << 10  # bytes of a note that a program leaves for its server


def open_regular(path: str | Path, *, dir_fd: int | None = None) -> int:
    """Open a regular file for reading; the caller closes the descriptor.

    Raises:
        OSError: it is not one, or is not there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return descriptor


def note(path: Path) -> dict[str, Any] | None:
    """Read a small JSON object; None where there is none, or something else."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = json.loads(file.read(NOTE_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
