"""What a program is started with (`pdk.kit.process`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Bind:
    """`source` of the host as the program sees it at `target`; either may be a file or a folder."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Spec:
    """What to start: argv, its whole environment, working folder (inside), binds and a file for standard input.

    `user` (a name or number, with ``:group`` after it) is whom it runs as, where this process may change that and the user exists.
    Folders in `hide` are empty to it but for what is bound inside them: the installation's state, above all. With `loopback` it
    listens on that interface only.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str = "/"
    binds: Sequence[Bind] = field(default_factory=tuple)
    stdin: Path | None = None
    hide: Sequence[Path] = field(default_factory=tuple)
    user: str = ""
    loopback: bool = False
