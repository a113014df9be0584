"""A datum's /pfs on this machine: its inputs, read-only and in memory where they are small, and what its program writes.

Jobs of several pipelines on one commit have one ID, and so have their datums: what is laid out belongs to a pipeline's job alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from pdk.errors import UserError
from pdk.kit.db import Database
from pdk.kit.spec import Bind
from pdk.local.pachyderm.rules import commits, files
from pdk.local.pachyderm.rules.datums import Datum
from pdk.local.pachyderm.rules.model import check_path
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.incoming import Incoming
from pdk.local.pachyderm.store.locations import find

SHARED_MEMORY = Path("/dev/shm")
MEMORY_LIMIT = 256 << 20  # bytes of inputs that are laid out in memory, at most
PAGE = 4096  # bytes that a file takes at least


class DatumFailed(UserError):
    """User code failed; the text is the job's reason."""


@contextlib.contextmanager
def in_memory(home: Path) -> Iterator[Path | None]:
    """Make an empty folder in memory for the server whose folder is `home`; None where there is none to be had.

    The name comes from the path: a copy of an installation has its IDs, but not its place.
    """
    folder = SHARED_MEMORY / f"pdk-{hashlib.blake2b(bytes(home.resolve()), digest_size=16).hexdigest()}"
    shutil.rmtree(folder, ignore_errors=True)  # of a server that was killed
    try:
        folder.mkdir(mode=0o700)
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fits(size: int, folder: Path) -> bool:
    """Return whether so many bytes may be laid out below a folder in memory."""
    space = os.statvfs(folder)
    return size <= min(MEMORY_LIMIT, space.f_bavail * space.f_frsize // 2, psutil.virtual_memory().available // 8)


def make_folder(folder: Path) -> None:
    """Make a folder that the job can enter, whoever it runs as."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)


class Layout:
    """The folders of one datum of one job.

    Args:
        home: a folder of the datum's own, on disk.
        memory: another one in memory, if there may be one.
    """

    def __init__(self, db: Database, blobs: BlobStore, datum: Datum, home: Path, memory: Path | None) -> None:
        self.db, self.blobs, self.datum = db, blobs, datum
        self.pfs = self.inputs = home / "pfs"
        self.memory = memory
        self._laid_out = 0  # input files

    def binds(self) -> list[Bind]:
        """Return everything as a program sees it."""
        return [Bind(self.pfs, "/pfs"), *(Bind(self.inputs / name, f"/pfs/{name}", True) for name in self._names())]

    def lay_out(self) -> None:
        """Write the input files (the path inside the repo is kept)."""
        self.remove()
        make_folder(self.pfs)
        with self.db.own_reader() as db, self.blobs.reading() as reading:
            found = [(part, commits.by_pk(db, part.commit)) for part in self.datum.inputs]
            tops = [(part, commit, files.inspect(db, commit, part.path, empty=True)) for part, commit in found if not part.s3]
            size = sum((0 if part.empty_files else top.size) + PAGE * top.files for part, _, top in tops)
            if self.memory and fits(size, self.memory.parent):
                self.inputs = self.memory
            for part, _ in found:
                make_folder(self.inputs / part.name)
            for part, commit, top in tops:
                target = self.inputs / part.name
                made = {str(target)}
                for entry in tree.files_below(files.entries_at(db, commits.view(db, commit), top.path)):
                    path = f"{target}{entry.path}"
                    parent, missing = path.rpartition("/")[0], []
                    while parent not in made:
                        missing.append(parent)
                        made.add(parent)
                        parent = parent.rpartition("/")[0]
                    for folder in reversed(missing):
                        make_folder(Path(folder))
                    reading.write_to(None if part.empty_files else find(db, entry.hash), path)
        self._laid_out = self._present()

    def _present(self) -> int:
        """Count the input files that are there."""
        return sum(len(names) for name in self._names() for _, _, names in os.walk(self.inputs / name))

    def check_inputs(self) -> None:
        """Look whether the program had its inputs to the end.

        Raises:
            DatumFailed: somebody removed some of them, as logind does with what a user has in memory when the user's last session ends.
        """
        if (left := self._present()) < self._laid_out:
            raise DatumFailed(
                f"only {left:,} of the {self._laid_out:,} input files of datum {self.datum.id} were left in {self.inputs} when its program "
                "ended: something else removed them, so what it wrote is not kept; end that (RemoveIPC=no in /etc/systemd/logind.conf, if "
                "the user of `pdk up` logged out meanwhile) and run the job again"
            )

    def _names(self) -> list[str]:
        return list(dict.fromkeys(part.name for part in self.datum.inputs))

    def clear_out(self) -> None:
        """Make /pfs/out empty."""
        shutil.rmtree(self.pfs / "out", ignore_errors=True)
        make_folder(self.pfs / "out")

    def remove(self) -> None:
        """Remove everything."""
        for folder in filter(None, (self.pfs, self.memory)):
            shutil.rmtree(folder, ignore_errors=True)

    def take_in(self, incoming: Incoming) -> dict[str, tuple[bytes, int]]:
        """Store every file below /pfs/out: path → (hash, size). Links may lead into /pfs only.

        Raises:
            DatumFailed: a file cannot be taken in.
        """
        written: dict[str, tuple[bytes, int]] = {}
        with self.db.own_reader() as db:
            incoming.reader = db
            for spelled, source in self._written(self.pfs / "out"):
                try:
                    cleaned = check_path(spelled)
                except UserError as error:
                    what = "cannot upload file produced by the user code because its name cannot be represented in PFS"
                    raise DatumFailed(f"{what}: {error}") from error
                with source.open("rb") as file:
                    while piece := file.read(1 << 20):
                        incoming.feed(piece)
                written[cleaned] = incoming.end()
            incoming.flush()
            incoming.reader = self.db.reader
        return written

    def _written(self, out: Path) -> Iterator[tuple[str, Path]]:
        """Give the files that the program left, each with its path in the output repo."""
        if out.is_symlink():
            raise DatumFailed("the program put a symbolic link in the place of /pfs/out; write the files into that folder")
        for folder, folders, names in os.walk(out, followlinks=False):
            for name in sorted([*names, *(d for d in folders if (Path(folder) / d).is_symlink())]):
                path = Path(folder) / name
                spelled = "/" + str(path.relative_to(out))
                if path.is_symlink():
                    yield from self._linked(path, spelled)
                elif path.is_file():  # not a pipe or a socket
                    yield spelled, path

    def _linked(self, path: Path, spelled: str) -> Iterator[tuple[str, Path]]:
        """Give the file, or the files of the folder, behind a symbolic link."""
        target = str(path.readlink())
        resolved = self._outside(path.parent / target if not target.startswith("/pfs/") else self.pfs / target.removeprefix("/pfs/"))
        if resolved is None or not resolved.exists():
            raise DatumFailed(f"the output {spelled} is a symbolic link to {target}, which is nothing below /pfs; write the file itself")
        if resolved.is_file():
            yield spelled, resolved
            return
        for folder, _, names in os.walk(resolved, followlinks=False):
            for name in sorted(names):
                below = Path(folder) / name
                if below.is_symlink():
                    raise DatumFailed(f"the output {spelled} is a link to a folder that holds another link ({below.name}); write the files")
                yield f"{spelled}/{below.relative_to(resolved)}", below

    def _outside(self, path: Path) -> Path | None:
        """Where a path below `pfs` lies outside of the job; None for one that leads elsewhere: to the host's files, not the job's."""
        resolved, pfs = path.resolve(), self.pfs.resolve()
        if not resolved.is_relative_to(pfs):
            return None
        name, *rest = resolved.relative_to(pfs).parts or ("",)
        if name in {part.name for part in self.datum.inputs}:  # inputs hold no links
            return self.inputs.joinpath(name, *rest)
        return resolved
