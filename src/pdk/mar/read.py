"""Read a .mar that may be hostile: every name, size and type is checked before a byte is written."""

from __future__ import annotations

import hashlib
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pdk.errors import UserError
from pdk.mar.format import MANIFEST, Manifest

MAX_MEMBERS = 10_000
MAX_BYTES = 32 << 30  # of everything unpacked
MAX_RATIO = 200  # unpacked size to packed size, of members above RATIO_FLOOR
RATIO_FLOOR = 1 << 20  # bytes; small files may compress well
MANIFEST_LIMIT = 1 << 20
PART = 1 << 20


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


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise UserError(f"the archive has {len(members):,} members, more than {MAX_MEMBERS:,}")
    seen: dict[str, str] = {}
    total = 0
    for member in members:
        check_name(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"the archive's member {member.filename!r} is a link or device; only files and folders are taken")
        key = member.filename.rstrip("/").casefold()
        if key in seen:
            raise UserError(f"the archive holds {seen[key]!r} and {member.filename!r}, which are the same name to some file systems")
        seen[key] = member.filename
        if member.flag_bits & 1:
            raise UserError(f"the archive's member {member.filename!r} is encrypted")
        total += member.file_size
        if member.file_size > RATIO_FLOOR and member.file_size > MAX_RATIO * max(1, member.compress_size):
            raise UserError(f"the archive's member {member.filename!r} unpacks to {member.file_size:,} bytes from {member.compress_size:,}")
    if total > MAX_BYTES:
        raise UserError(f"the archive unpacks to {total:,} bytes, more than {MAX_BYTES:,}")
    files = {name for name, spelled in seen.items() if not spelled.endswith("/")}
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
        with _zip(path) as archive:
            members = archive.infolist()
            _check_members(members)
            names = tuple(member.filename for member in members)
            if MANIFEST not in names:
                raise UserError(f"{path.name} holds no {MANIFEST}: it is not a model archive")
            if archive.getinfo(MANIFEST).file_size > MANIFEST_LIMIT:
                raise UserError(f"the {MANIFEST} of {path.name} is larger than {MANIFEST_LIMIT:,} bytes")
            manifest = Manifest.from_json(archive.read(MANIFEST))
        for name in (manifest.handler.partition(":")[0], manifest.serialized_file):
            if name and name.endswith((".py", ".pt", ".pt2", ".pth")):
                check_name(name)
                if name not in names:
                    raise UserError(f"{path.name} lacks {name!r}, which its manifest names")
        return cls(path, manifest, names)

    def read(self, name: str, limit: int = PART) -> bytes:
        """One small member.

        Raises:
            UserError: it is missing or larger than `limit` bytes.
        """
        with _zip(self.path) as archive:
            if name not in self.names:
                raise UserError(f"{self.path.name} holds no {name!r}")
            with archive.open(name) as member:
                content = member.read(limit + 1)
        if len(content) > limit:
            raise UserError(f"{name!r} of {self.path.name} is larger than {limit:,} bytes")
        return content

    def extract(self, target: Path) -> None:
        """Unpack everything below the new folder `target`.

        Raises:
            UserError: a member holds more than its header says.
        """
        target.mkdir(parents=True)
        with _zip(self.path) as archive:
            for member in archive.infolist():
                path = target / member.filename
                if member.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                left = member.file_size
                with archive.open(member) as source, path.open("xb") as file:
                    while part := source.read(PART):
                        left -= len(part)
                        if left < 0:
                            raise UserError(
                                f"{member.filename!r} of {self.path.name} holds more than the {member.file_size:,} bytes it claims"
                            )
                        file.write(part)

    def digest(self) -> str:
        """SHA-256 of the whole file, in hex."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at `path`; what zipfile says of a broken one becomes UserError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise UserError(f"there is no archive {path}") from None
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,
        zlib.error,
    ) as error:
        raise UserError(f"{path.name} is not a readable archive: {error}") from error
