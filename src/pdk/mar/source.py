"""The three forms that an archive comes in, as torch-model-archiver makes them: a zip (.mar), a .tar.gz, a folder."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from pdk.errors import UserError
from pdk.mar.format import MANIFEST


@dataclass(frozen=True)
class Member:
    """One entry: its name as it stands, its size unpacked and packed in bytes, and why it cannot be taken, if so."""

    name: str
    size: int
    packed: int
    folder: bool = False
    refused: str = ""


class Source(Protocol):
    """An opened archive."""

    def members(self) -> Sequence[Member]:
        """Return all entries, in their order."""

    def open(self, member: Member) -> IO[bytes]:
        """Return an entry's content."""


class ZipSource:
    """A zip."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def members(self) -> Sequence[Member]:
        """Return all entries."""
        return [self._member(info) for info in self._archive.infolist()]

    def _member(self, info: zipfile.ZipInfo) -> Member:
        kind, why = stat.S_IFMT(info.external_attr >> 16), ""
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            why = "is a link or device; only files and folders are taken"
        elif info.flag_bits & 1:
            why = "is encrypted"
        return Member(info.filename, info.file_size, info.compress_size, info.is_dir(), why)

    def open(self, member: Member) -> IO[bytes]:
        """Return an entry's content."""
        return self._archive.open(member.name)


class TarSource:
    """A compressed tar; what lies in one folder that has the manifest is taken as lying at the top."""

    def __init__(self, archive: tarfile.TarFile, size: int) -> None:
        self._size, self._archive = size, archive
        spelled = [(entry.name.removeprefix("./"), entry) for entry in archive.getmembers() if entry.name not in (".", "./")]
        top = next((name.removesuffix(MANIFEST) for name, _ in spelled if name.count("/") == 2 and name.endswith(f"/{MANIFEST}")), "")
        found = [(name.removeprefix(top), entry) for name, entry in spelled if name != top.rstrip("/")]
        self._entries = dict(found)
        if len(self._entries) < len(found):
            raise UserError("the archive holds two members of the same name")

    def members(self) -> Sequence[Member]:
        """Return all entries; how far one alone was compressed is not known, so each counts with the whole."""
        why = "is a link or device; only files and folders are taken"
        return [
            Member(name, entry.size, self._size, entry.isdir(), "" if entry.isfile() or entry.isdir() else why)
            for name, entry in self._entries.items()
        ]

    def open(self, member: Member) -> IO[bytes]:
        """Return an entry's content."""
        content = self._archive.extractfile(self._entries[member.name])
        if content is None:
            raise UserError(f"the archive's member {member.name!r} is no file")
        return content


class FolderSource:
    """A folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Sequence[Member]:
        """Return all entries."""
        return [self._member(path) for path in sorted(self._path.rglob("*"))]

    def _member(self, path: Path) -> Member:
        name, found = path.relative_to(self._path).as_posix(), path.lstat()
        why = "" if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) else "is a link or device; only files and folders are taken"
        return Member(name, found.st_size, found.st_size, stat.S_ISDIR(found.st_mode), why)

    def open(self, member: Member) -> IO[bytes]:
        """Return an entry's content."""
        return (self._path / member.name).open("rb")


BROKEN = (
    zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error, NotImplementedError, EOFError, OSError, ValueError,
    RuntimeError,
)  # fmt: skip


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Give the archive at `path`, whatever its form; what the libraries say of a broken one becomes UserError."""
    if not path.exists():
        raise UserError(f"there is no archive {path}")
    try:
        if path.is_dir():
            yield FolderSource(path)
        elif path.name.endswith((".tar.gz", ".tgz")):
            with tarfile.open(path, "r:gz") as tar:
                yield TarSource(tar, path.stat().st_size)
        else:
            with zipfile.ZipFile(path) as zip_:
                yield ZipSource(zip_)
    except BROKEN as error:
        raise UserError(f"{path.name} is not a readable archive: {error}") from error
