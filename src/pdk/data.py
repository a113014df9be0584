"""What experiments read a data commit with: its pictures, tables and texts, or only what changed since another commit.

``data.pachyderm`` of an experiment's config says where the data of a run is, and the train step fills it in::

    from pdk import data

    for file in data.pictures(context.get_data_config()["pachyderm"]):
        picture = PIL.Image.open(file.local)

With ``previous_commit`` set in it, as in an incremental run, each function gives what is new or changed since then and nothing else.
Contents come in one stream and stay in a folder below ``$XDG_CACHE_HOME``, each named by its hash: the next run fetches what is new. An
engine that is away, as in its restart, is waited for.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pdk.engines.pachyderm.commit_files import CommitFiles, Entry
from pdk.engines.patience import patiently
from pdk.environment import cache_home
from pdk.errors import TemporaryError, UserError

__all__ = ["PICTURES", "TABLES", "File", "Row", "files", "paths", "pictures", "rows", "texts"]

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
TABLES = (".csv", ".tsv")
FEW = 64  # up to so many missing contents are fetched one by one, several at a time
PART = 1 << 20  # bytes of a file that are read at once


@dataclass(frozen=True)
class File:
    """A file of the data commit.

    Attributes:
        path: where it is in the repo, with a slash at the beginning.
        hash: the engine's hash of its content; equal for equal contents.
        local: a file on this machine that holds the content; not to be changed.
    """

    path: str
    hash: str
    local: Path

    def read(self) -> bytes:
        """Read the whole content."""
        return self.local.read_bytes()


@dataclass(frozen=True)
class Row:
    """A row of a table: the values by the names in the table's first line, and where it stands."""

    path: str
    line: int
    values: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


def paths(source: Mapping[str, Any]) -> list[str]:
    """List the paths of the data commit's files; fetches none of them; as `files`."""
    return [entry.path for entry in _entries(source, _commit(source))]


def files(source: Mapping[str, Any], suffixes: Sequence[str] = ()) -> list[File]:
    """Fetch the files of the data commit, by path.

    Args:
        source: ``data.pachyderm`` of the experiment's config.
        suffixes: the ends that a file's name must have one of, in lower case; hidden files have none of them.

    Raises:
        UserError: the config does not say where the data is.
        PdkError: the engine refuses, or was away for too long.
    """
    commit = _commit(source)
    wanted = [entry for entry in _entries(source, commit) if not suffixes or _ends(entry.path, suffixes)]
    folder = cache_home() / "pdk-data"
    folder.mkdir(parents=True, exist_ok=True)
    _fetch(commit, wanted, folder)
    return [File(entry.path, entry.hash, _local(folder, entry)) for entry in wanted]


def pictures(source: Mapping[str, Any]) -> list[File]:
    """Fetch the files that are pictures by their names (`PICTURES`); as `files`."""
    return files(source, PICTURES)


def texts(source: Mapping[str, Any], suffixes: Sequence[str] = (".txt",)) -> Iterator[tuple[File, str]]:
    """Read the files that hold text in UTF-8; as `files`.

    Raises:
        UserError: a file does not.
    """
    for file in files(source, suffixes):
        try:
            yield file, file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{file.path} of the data commit is no text in UTF-8: {error}; convert it and put it again") from error


def rows(source: Mapping[str, Any]) -> Iterator[Row]:
    """Read the rows of all tables (`TABLES`: values apart by commas, or by tabs), each with its names in the first line; as `texts`.

    Raises:
        UserError: a row has another number of values than its table has names.
    """
    for file, text in texts(source, TABLES):
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if file.path.endswith(".tsv") else ",")
        try:
            for values in reader:
                if None in values or None in values.values():
                    raise UserError(
                        f"{file.path}, line {reader.line_num}: {len(reader.fieldnames or ())} values are expected; mend that line"
                    )
                yield Row(file.path, reader.line_num, values)
        except csv.Error as error:
            raise UserError(f"{file.path}, line {reader.line_num} is no row of a table: {error}") from error


def _commit(source: Mapping[str, Any]) -> CommitFiles:
    try:
        address, repo = (str(source["host"]), int(source["port"])), (str(source["project"]), str(source["repo"]))
        if not (address[0] and repo[1] and source["branch"]):
            raise KeyError("host, repo or branch")
    except (KeyError, ValueError) as error:
        raise UserError(f"data.pachyderm of the experiment's config lacks {error}; the train step fills it in") from error
    return CommitFiles(address, str(source.get("token") or ""), repo, str(source["branch"]))


def _entries(source: Mapping[str, Any], commit: CommitFiles) -> list[Entry]:
    since = str(source.get("previous_commit") or "")
    return patiently("the list of files", lambda: commit.since(since) if since else commit.every())


def _ends(path: str, suffixes: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return name.lower().endswith(tuple(suffixes)) and not name.startswith(".")


def _local(folder: Path, entry: Entry) -> Path:
    """Return the cached file of a content; hashes are the engine's, and what comes from elsewhere is no path."""
    return folder / hashlib.sha256(f"{entry.hash}-{entry.size}".encode()).hexdigest()


def _fetch(commit: CommitFiles, wanted: Sequence[Entry], folder: Path) -> None:
    """Bring what is missing into the cache; an engine that goes away again and again is waited for as long as something comes."""

    def bring() -> None:
        _bring(commit, {entry.path: entry for entry in wanted if not _is_there(folder, entry)}, folder)

    left = len(wanted) + 1
    while missing := sum(not _is_there(folder, entry) for entry in wanted):
        if missing >= left:
            raise TemporaryError(f"{missing} of {len(wanted)} files of {commit.name} do not come; is Pachyderm well?")
        left = missing
        with contextlib.suppress(TemporaryError):  # what came stays: the next time is about the rest
            patiently("the files", bring)


def _bring(commit: CommitFiles, missing: Mapping[str, Entry], folder: Path) -> None:
    if len(missing) > FEW:
        commit.stream(missing.keys(), lambda path, content: _keep(folder, missing[path], content))
    else:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda entry: _keep(folder, entry, io.BytesIO(commit.read(entry.path))), missing.values()))


def _is_there(folder: Path, entry: Entry) -> bool:
    try:
        return _local(folder, entry).stat().st_size == entry.size
    except FileNotFoundError:
        return False


def _keep(folder: Path, entry: Entry, content: IO[bytes]) -> None:
    """Put a content into the cache, whole or not at all; other trials may bring the same one at the same time."""
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        try:
            shutil.copyfileobj(content, file, PART)
            file.flush()
            if file.tell() != entry.size:
                raise TemporaryError(f"{entry.path} came with {file.tell()} instead of {entry.size} bytes")
            Path(file.name).rename(_local(folder, entry))
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
