"""Write a .mar: the same inputs give the same bytes, wherever and whenever."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pdk.errors import UserError
from pdk.mar.format import MANIFEST, Manifest
from pdk.mar.read import check_name

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold


def write(target: Path, manifest: Manifest, files: Mapping[str, Path | bytes]) -> None:
    """Write an archive; `target` appears whole or not at all.

    Args:
        target: the .mar file.
        manifest: its manifest; the files that it names must be among `files`.
        files: path inside the archive → a file, or its content. Folders inside paths are kept.

    Raises:
        UserError: a path that no archive may hold, or a file that the manifest names is missing.
    """
    manifest.check()
    named = [
        manifest.handler.partition(":")[0],
        manifest.serialized_file,
        manifest.model_file,
        manifest.requirements_file,
        manifest.config_file,
    ]
    for name in named:
        if name and name not in files:
            raise UserError(f"the archive of model {manifest.model_name!r} lacks {name!r}, which its manifest names")
    for name in files:
        check_name(name)
    members: dict[str, Path | bytes] = {**files, MANIFEST: manifest.to_json()}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as temporary:
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                for name in sorted(members):
                    content = members[name]
                    info = zipfile.ZipInfo(name, EPOCH)
                    info.external_attr = 0o644 << 16
                    info.create_system = 3
                    info.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
                    with (
                        archive.open(info, "w") as member,
                        io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source,
                    ):
                        shutil.copyfileobj(source, member, 1 << 20)
            temporary.flush()
            os.fsync(temporary.fileno())
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise
    Path(temporary.name).replace(target)
