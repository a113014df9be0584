"""Put an archive together from files, as ``torch-model-archiver`` does, and say what is in one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdk.errors import UserError
from pdk.mar.format import PROVENANCE, REQUIREMENTS, Manifest
from pdk.mar.read import Archive
from pdk.mar.requirements import lock
from pdk.mar.write import write


@dataclass(frozen=True)
class Parts:
    """What goes into an archive; folders among the extra files are taken whole, with their structure."""

    handler: str
    serialized: Path | None = None
    model_file: Path | None = None
    extra: Sequence[Path] = ()
    requirements: Path | None = None
    config: Path | None = None
    lock: bool = True  # the requirements, with versions and hashes


def create(target: Path, name: str, version: str, parts: Parts, provenance: Mapping[str, Any] | None = None) -> Archive:
    """Write an archive and read it back; the same inputs give the same bytes.

    Raises:
        UserError: a file is missing, or two have the same place in the archive.
    """
    files: dict[str, Path | bytes] = {}

    def add(path: Path, place: str) -> None:
        if not path.is_file():
            raise UserError(f"{path} is no file; it cannot go into the archive")
        if place in files:
            raise UserError(f"two files would be {place!r} in the archive; rename one of them")
        files[place] = path

    code, _, entry = parts.handler.partition(":")
    handler = parts.handler
    if code.endswith(".py"):
        handler = Path(code).name + (f":{entry}" if entry else "")
        add(Path(code), Path(code).name)
    for path in (parts.serialized, parts.model_file):
        if path is not None:
            add(path, path.name)
    if parts.requirements is not None:
        if not parts.requirements.is_file():
            raise UserError(f"{parts.requirements} is no file; it cannot go into the archive")
        files[REQUIREMENTS] = lock(parts.requirements) if parts.lock else parts.requirements.read_bytes()
    if parts.config is not None:
        add(parts.config, "model-config.yaml")
    for path in parts.extra:
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]:
            add(file, file.relative_to(path.parent).as_posix())
    if provenance is not None:
        files[PROVENANCE] = json.dumps({**provenance, "model": name, "version": version}, indent=1, sort_keys=True).encode()
    manifest = Manifest(
        name,
        version,
        handler,
        parts.serialized.name if parts.serialized else None,
        parts.model_file.name if parts.model_file else None,
        REQUIREMENTS if parts.requirements else None,
        "model-config.yaml" if parts.config else None,
    )
    write(target, manifest, files)
    return Archive.open(target)


def inspect(path: Path) -> dict[str, Any]:
    """Return what an archive says of itself.

    Raises:
        UserError: it is not an archive, or one that cannot be trusted.
    """
    archive = Archive.open(path)
    manifest, sizes = archive.manifest, archive.sizes()
    return {
        "model": manifest.model_name,
        "version": manifest.model_version,
        "handler": manifest.handler,
        "serialized_file": manifest.serialized_file,
        "digest": archive.digest(),
        "bytes": path.stat().st_size if path.is_file() else sum(sizes.values()),
        "files": sizes,
        "requirements": archive.read(REQUIREMENTS).decode() if REQUIREMENTS in archive.names else None,
        "provenance": json.loads(archive.read(PROVENANCE)) if PROVENANCE in archive.names else None,
    }
