"""Read an archive that may be hostile: every name, size and type is checked before a byte is written."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pdk.errors import UserError
from pdk.mar.format import MANIFEST, Manifest
from pdk.mar.source import Member, opened

MAX_MEMBERS = 10_000  # files of an archive
MAX_BYTES = 32 << 30  # of everything unpacked
MAX_RATIO = 200  # unpacked size to packed size, of members above RATIO_FLOOR
RATIO_FLOOR = 1 << 20  # bytes; small files may compress well
MANIFEST_LIMIT = 1 << 20  # bytes of an archive's manifest
PART = 1 << 20  # bytes that are unpacked at once


def check_name(name: str) -> None:
    """Raise UserError for a member's name that could leave the target folder or mean two things."""
    parts = name.rstrip("/").split("/")
    bad = (
        not name
        or name.startswith("/")
        or "\\" in name
        or "\0" in name
        or any(part in ("", ".", "..") for part in parts)
        or (len(parts[0]) == 2 and parts[0][1] == ":")
        or unicodedata.normalize("NFC", name) != name
        or len(name.encode("utf-8", "surrogatepass")) > 1024
        or any(ord(character) < 32 for character in name)
    )
    if bad:
        raise UserError(f"the archive holds a member named {name[:200]!r}, which is not a plain relative path; nothing was unpacked")


def _check_members(members: Sequence[Member]) -> None:
    if len(members) > MAX_MEMBERS:
        raise UserError(f"the archive has {len(members):,} members, more than {MAX_MEMBERS:,}")
    seen: dict[str, str] = {}
    total = 0
    for member in members:
        check_name(member.name)
        if member.refused:
            raise UserError(f"the archive's member {member.name!r} {member.refused}")
        key = member.name.rstrip("/").casefold()
        if key in seen:
            raise UserError(f"the archive holds {seen[key]!r} and {member.name!r}, which are the same name to some file systems")
        seen[key] = member.name
        total += member.size
        if member.size > RATIO_FLOOR and member.size > MAX_RATIO * max(1, member.packed):
            raise UserError(f"the archive's member {member.name!r} unpacks to {member.size:,} bytes from {member.packed:,}")
    if total > MAX_BYTES:
        raise UserError(f"the archive unpacks to {total:,} bytes, more than {MAX_BYTES:,}")
    files = {member.name.rstrip("/").casefold() for member in members if not member.folder}
    for name, spelled in seen.items():
        for count in range(1, name.count("/") + 1):
            if "/".join(name.split("/")[:count]) in files:
                raise UserError(f"the archive's member {spelled!r} lies below another member that is a file")


@dataclass(frozen=True)
class Archive:
    """A checked archive on disk."""

    path: Path
    manifest: Manifest
    names: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Check an archive and read its manifest.

        Raises:
            UserError: it is no model archive, or one that cannot be trusted.
        """
        with opened(path) as archive:
            members = archive.members()
            _check_members(members)
            found = next((member for member in members if member.name == MANIFEST), None)
            if found is None:
                raise UserError(f"{path.name} holds no {MANIFEST}: it is not a model archive")
            if found.size > MANIFEST_LIMIT:
                raise UserError(f"the {MANIFEST} of {path.name} is larger than {MANIFEST_LIMIT:,} bytes")
            with archive.open(found) as content:
                manifest = Manifest.from_json(content.read(MANIFEST_LIMIT + 1))
        names = tuple(member.name for member in members)
        for name in (manifest.handler.partition(":")[0], manifest.serialized_file):
            if name and name.endswith((".py", ".pt", ".pt2", ".pth")):
                check_name(name)
                if name not in names:
                    raise UserError(f"{path.name} lacks {name!r}, which its manifest names")
        return cls(path, manifest, names)

    def read(self, name: str, limit: int = PART) -> bytes:
        """Return one small member.

        Raises:
            UserError: it is missing or larger than `limit` bytes.
        """
        with opened(self.path) as archive:
            found = next((member for member in archive.members() if member.name == name), None)
            if found is None:
                raise UserError(f"{self.path.name} holds no {name!r}")
            with archive.open(found) as source:
                content = source.read(limit + 1)
        if len(content) > limit:
            raise UserError(f"{name!r} of {self.path.name} is larger than {limit:,} bytes")
        return content

    def extract(self, target: Path) -> None:
        """Unpack everything below the new folder `target`.

        Raises:
            UserError: a member holds more than its header says.
        """
        target.mkdir(parents=True)
        with opened(self.path) as archive:
            for member in archive.members():
                path = target / member.name
                if member.folder:
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                left = member.size
                with archive.open(member) as source, path.open("xb") as file:
                    while part := source.read(PART):
                        left -= len(part)
                        if left < 0:
                            raise UserError(f"{member.name!r} of {self.path.name} holds more than the {member.size:,} bytes it claims")
                        file.write(part)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file."""
        with opened(self.path) as archive:
            return {member.name: member.size for member in archive.members() if not member.folder}

    def digest(self) -> str:
        """SHA-256 in hex: of the whole file; of names and contents where it is a folder."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        made = hashlib.sha256()
        for name in sorted(self.sizes()):
            with (self.path / name).open("rb") as file:
                made.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
        return made.hexdigest()
