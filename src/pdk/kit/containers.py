"""Which program stands behind an image's name.

This project's images run as plain processes in their container folder. Every other image needs podman or docker.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pdk.errors import UserError
from pdk.kit.process import base_environment
from pdk.kit.spec import Bind, Spec
from pdk.shipped import ROOT

# repository → folder of the checkout
OURS = {"pdk/train": "containers/train", "pdk/deploy": "containers/deploy", "pdk/serve": "containers/serve"}
WAITING = ("podman", "docker")


def repository(image: str) -> str:
    """Return an image's name without tag and digest: ``host:5000/a/b:1.0`` → ``host:5000/a/b``."""
    name = image.partition("@")[0]
    head, _, last = name.rpartition("/")
    return f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]


def folder(image: str) -> Path | None:
    """Return the container folder behind one of this project's images."""
    found = OURS.get(repository(image))
    return ROOT / found if found else None


def program(
    image: str, argv: Sequence[str], env: Mapping[str, str], *, binds: Sequence[Bind], stdin: Path | None, cwd: str, scratch: Path
) -> Spec:
    """Return how to run `argv` in `image`; `scratch` is a private folder for what must be passed by file.

    Raises:
        UserError: the image is not one of ours and there is nothing here to run it with.
    """
    home = folder(image)
    if home is not None:
        return Spec(argv=argv, env={**base_environment(), **env}, cwd=cwd or str(home), binds=binds, stdin=stdin)
    engine = next((found for name in WAITING if (found := shutil.which(name))), None)
    if engine is None:
        raise UserError(
            f"the image {image!r} cannot be run: it is none of {', '.join(sorted(OURS))}, which run as plain processes, and neither podman "
            "nor docker is installed; install one of them, or name one of those images"
        )
    lines = [f"{key}={value}" for key, value in env.items() if "\n" not in value]
    env_file = scratch / "env"
    descriptor = os.open(env_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # not on the command line: it holds secrets
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines) + "\n")
    passed = Bind(env_file, str(env_file), read_only=True)  # the engine's client runs as the program, which does not see `scratch`
    command = [engine, "run", "--rm", "--interactive", "--network=host", f"--env-file={env_file}"]
    for bind in binds:
        command.append(f"--volume={bind.source}:{bind.target}" + (":ro" if bind.read_only else ""))
    if cwd:
        command.append(f"--workdir={cwd}")
    # argv replaces both the image's entry point and its command, as on a cluster
    command += [f"--entrypoint={argv[0]}", image, *argv[1:]]
    return Spec(argv=command, env=base_environment(), binds=[passed], stdin=stdin)
