"""Files of a Pachyderm's commits."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pachyderm_sdk.api import pfs

from pdk.engines.pachyderm.connection import PART, Connection, Target, commit_of, mapped_errors, moment, repo_of
from pdk.engines.records import Difference, File
from pdk.errors import NotFound, UserError


class Files(Connection):
    """The calls about files. Targets are in pachctl's grammar (`Target`)."""

    def files(self, project: str, target: str, *, number: int = 0, after: str = "") -> Iterator[File]:
        """Give the entries of a folder by path; at most `number`, or all; those that come after the path `after`."""
        place = Target(target, project).file
        marker = pfs.File(commit=place.commit, path=after) if after else None
        with mapped_errors(self.address):
            for info in self._client.pfs.list_file(file=place, number=number, pagination_marker=marker):
                yield _file(info)

    def glob(self, project: str, target: str) -> Iterator[File]:
        """Give the files that match a pattern."""
        place = Target(target, project)
        with mapped_errors(self.address):
            for info in self._client.pfs.glob_file(commit=place.commit, pattern=place.path):
                yield _file(info)

    def file(self, project: str, target: str) -> File:
        """Return one file or folder."""
        with mapped_errors(self.address):
            return _file(self._client.pfs.inspect_file(file=Target(target, project).file))

    def content(self, project: str, target: str) -> Iterator[bytes]:
        """Give a file's content."""
        with mapped_errors(self.address), self._client.pfs.pfs_file(file=Target(target, project).file) as source:
            while part := source.read(PART):
                yield part

    def read(self, project: str, repo: str, id_: str, path: str) -> bytes | None:
        """Return the content of a small file of a commit; None where it is missing."""
        file = pfs.File(commit=commit_of(project, repo, id_), path=path)
        try:
            with mapped_errors(self.address):
                self._client.pfs.inspect_file(file=file)
                with self._client.pfs.pfs_file(file=file) as source:
                    return bytes(source.read())
        except NotFound:
            return None

    def archive(self, project: str, target: str) -> Iterator[tuple[str, int, Iterable[bytes]]]:
        """Give every file below a folder: path in the repo, size, content."""
        with mapped_errors(self.address):
            parts = self._client.pfs.get_file_tar(file=Target(target, project).file)
            with tarfile.open(fileobj=_Stream(part.value for part in parts), mode="r|") as archive:
                for member in archive:
                    if member.isfile() and (file := archive.extractfile(member)):
                        yield member.name, member.size, iter(lambda file=file: file.read(PART), b"")  # type: ignore[misc]

    def differences(self, project: str, new: str, old: str = "") -> Iterator[Difference]:
        """Give the files that are not the same in two commits, or in a commit and its parent."""
        with mapped_errors(self.address):
            before = Target(old, project).file if old else None
            for change in self._client.pfs.diff_file(new_file=Target(new, project).file, old_file=before):
                was, now = (side if side and side.file else None for side in (change.old_file, change.new_file))
                info = now or was
                if info is not None and info.file_type == pfs.FileType.FILE:
                    kind = "changed" if was and now else "added" if now else "deleted"
                    yield Difference(kind, info.file.path, was and was.size_bytes, now and now.size_bytes)

    def write(self, project: str, repo: str, branch: str, folder: str, files: Mapping[str, bytes | Path]) -> str:
        """Replace `folder` by `files` in one commit; returns the ID of a finished commit that holds them.

        One request makes, fills and finishes the commit: whatever happens to this process, none is left open.

        Args:
            files: path below the folder → content, or a file that holds it.
        """
        target = pfs.Branch(repo=repo_of(project, repo), name=branch)

        def requests() -> Iterator[Any]:
            yield pfs.ModifyFileRequest(set_commit=pfs.Commit(repo=target.repo, branch=target))
            yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=f"/{folder}/"))
            for path, content in sorted(files.items()):
                for part in _parts(content):
                    yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=f"/{folder}/{path}", raw=part))

        with mapped_errors(self.address):
            self._client.pfs.modify_file(requests())
            head = self._client.pfs.inspect_branch(branch=target).head
            self._client.pfs.inspect_commit(commit=head, wait=pfs.CommitState.FINISHED)
        return str(head.id)

    def put_files(
        self,
        project: str,
        repo: str,
        branch: str,
        files: Mapping[str, str | Path],
        *,
        append: bool = False,
        sent: Callable[[int], object] = int,
    ) -> str:
        """Put files (path in the repo → local file) in one commit; returns the ID of the branch's head.

        Args:
            sent: told of every so many bytes that went out.
        """
        target = pfs.Branch(repo=repo_of(project, repo), name=branch)

        def requests() -> Iterator[Any]:
            yield pfs.ModifyFileRequest(set_commit=pfs.Commit(repo=target.repo, branch=target))
            for path, source in files.items():
                if not append:
                    yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path))
                for part in _parts(Path(source)):
                    yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=part))
                    sent(len(part))

        with mapped_errors(self.address):
            self._client.pfs.modify_file(requests())
            return str(self._client.pfs.inspect_branch(branch=target).head.id)

    def copy_file(self, project: str, source: str, target: str, *, append: bool) -> None:
        """Copy a file or folder, in a commit of its own or in the branch's open one."""
        origin, place = Target(source, project), Target(target, project)
        self._modify(place, pfs.ModifyFileRequest(copy_file=pfs.CopyFile(dst=place.path, src=origin.file, append=append)))

    def delete_file(self, project: str, target: str, *, recursive: bool) -> None:
        """Remove a file, or with `recursive` a folder."""
        place = Target(target, project)
        path = place.path.rstrip("/") + "/" if recursive else place.path
        self._modify(place, pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path)))

    def _modify(self, place: Target, change: pfs.ModifyFileRequest) -> None:
        with mapped_errors(self.address):
            self._client.pfs.modify_file(iter([pfs.ModifyFileRequest(set_commit=place.commit), change]))


def _parts(content: bytes | Path) -> Iterator[bytes]:
    """Give a content in parts; one part where it is empty: a message makes the file."""
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        yield file.read(PART)
        while part := file.read(PART):
            yield part


def _file(info: pfs.FileInfo) -> File:
    kind = pfs.FileType(info.file_type).name.lower()
    return File(info.file.path, kind, info.size_bytes, info.hash.hex(), moment(info.committed))


class _Stream(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts, self.rest = parts, b""

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        while not self.rest:
            part = next(self.parts, None)
            if part is None:
                return 0
            self.rest = part
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def save(members: Iterable[tuple[str, int, Iterable[bytes]]], folder: Path, prefix: str) -> Iterator[int]:
    """Write an archive's files below `folder`, their paths taken from below `prefix`; yields bytes written.

    Raises:
        UserError: a path leads out of the folder.
    """
    root = folder.resolve()
    for name, _size, content in members:
        relative = "/" + name.lstrip("/")
        relative = relative.removeprefix(prefix.rstrip("/")) or "/" + relative.rsplit("/", 1)[-1]
        target = root / relative.lstrip("/")
        if not target.resolve().is_relative_to(root):
            raise UserError(f"the file {name!r} would be written outside {folder}; nothing was written for it")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for part in content:
                file.write(part)
                yield len(part)
