"""Versioned data in pachctl's grammar: projects, repos, branches, commits, files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pdk.cli import rows
from pdk.cli.commands import Command
from pdk.cli.common import Output, Project, State, catalog, pachyderm, show
from pdk.cli.storage import local_put
from pdk.errors import UserError

Description = Annotated[str, typer.Option("--description", "-d", "--message", "-m")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Even where something depends on it.")]
FileName = Annotated[str, typer.Argument(help="REPO@BRANCH-OR-COMMIT:/PATH")]
BranchName = Annotated[str, typer.Argument(help="REPO@BRANCH")]
CommitName = Annotated[str, typer.Argument(help="REPO@BRANCH-OR-COMMIT")]


@contextmanager
def progress(files: Iterable[str | Path] = (), total: int = 0) -> Iterator[Callable[[int], object]]:
    """A bar over the bytes of files, or over so many, on standard error; gives what advances it. Nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield partial(bar.advance, bar.add_task("", total=total or sum(Path(file).stat().st_size for file in files)))


def create_project(name: str, description: Description = "", state: State = None) -> None:
    """Create a project."""
    pachyderm(state).create_project(name, description)


def create_repo(name: str, description: Description = "", project: Project = "default", state: State = None) -> None:
    """Create a repo."""
    pachyderm(state).create_repo(project, name, description)


def create_branch(
    name: BranchName,
    head: Annotated[str, typer.Option(help="Commit, branch or ancestry (master^) that it points to.")] = "",
    trigger: Annotated[str, typer.Option(help="Branch of the same repo that it follows.")] = "",
    trigger_commits: Annotated[int, typer.Option(help="Follow once so many commits came together.")] = 0,
    trigger_size: Annotated[str, typer.Option(help="Follow once so much data came together (10M).")] = "",
    trigger_cron: Annotated[str, typer.Option(help="Follow by the clock (a cron spec).")] = "",
    trigger_all: Annotated[bool, typer.Option(help="All conditions must hold.")] = False,
    project: Project = "default",
    state: State = None,
) -> None:
    """Create a branch, or point it elsewhere."""
    conditions = {"branch": trigger, "commits": trigger_commits, "size": trigger_size, "cron_spec": trigger_cron, "all": trigger_all}
    pachyderm(state).create_branch(project, name, head, conditions if trigger else None)


def list_project(state: State = None, output: Output = "table") -> None:
    """List projects."""
    show([rows.project(item) for item in catalog(state).projects()], output)


def list_repo(project: Project = "default", state: State = None, output: Output = "table") -> None:
    """List repos."""
    show([rows.repo(item) for item in catalog(state).repos(project)], output)


def list_branch(repo: str, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """List the branches of a repo."""
    show([rows.branch(item) for item in catalog(state).branches(project, repo)], output)


def list_commit(
    target: Annotated[str, typer.Argument(help="REPO, REPO@BRANCH, or an ID for all commits that share it.")],
    number: Annotated[int, typer.Option("--number", "-n", help="At most so many; 0 for all.")] = 0,
    project: Project = "default",
    state: State = None,
    output: Output = "table",
) -> None:
    """List commits, newest first."""
    engine = pachyderm(state)
    found = engine.commit_set(target) if len(target) == 32 and "@" not in target else engine.commits(project, target, number)
    show([rows.commit(item) for item in found], output)


def list_file(target: FileName, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """List the files of a folder."""
    show([rows.file(item) for item in pachyderm(state).files(project, target)], output)


def glob_file(target: FileName, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """List the files that a pattern matches."""
    show([rows.file(item) for item in pachyderm(state).glob(project, target)], output)


def inspect_project(name: str, state: State = None, output: Output = "table") -> None:
    """Show a project."""
    show([rows.project(catalog(state).projects().get(name))], output)


def inspect_repo(name: str, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """Show a repo."""
    show([rows.one_repo(catalog(state).repos(project).get(name))], output)


def inspect_branch(name: BranchName, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """Show a branch."""
    show([rows.branch(pachyderm(state).branch(project, name))], output)


def inspect_commit(
    name: CommitName,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until it is finished.")] = False,
    project: Project = "default",
    state: State = None,
    output: Output = "table",
) -> None:
    """Show a commit."""
    show([rows.commit(pachyderm(state).commit(project, name, wait=wait))], output)


def inspect_file(target: FileName, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """Show a file or folder."""
    show([rows.file(pachyderm(state).file(project, target))], output)


def delete_project(name: str, force: Force = False, state: State = None) -> None:
    """Delete a project."""
    pachyderm(state).delete_project(name, force=force)


def delete_repo(name: str, force: Force = False, project: Project = "default", state: State = None) -> None:
    """Delete a repo with its commits."""
    pachyderm(state).delete_repo(project, name, force=force)


def delete_branch(name: BranchName, force: Force = False, project: Project = "default", state: State = None) -> None:
    """Delete a branch; its commits stay."""
    pachyderm(state).delete_branch(project, name, force=force)


def delete_file(
    target: FileName,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Delete a folder.")] = False,
    project: Project = "default",
    state: State = None,
) -> None:
    """Delete a file from a branch, in one commit."""
    pachyderm(state).delete_file(project, target, recursive=recursive)


def start_commit(name: BranchName, description: Description = "", project: Project = "default", state: State = None) -> None:
    """Open a commit and print its ID; files that are put into the branch go there until it is finished."""
    typer.echo(pachyderm(state).start_commit(project, name, description))


def finish_commit(name: CommitName, description: Description = "", project: Project = "default", state: State = None) -> None:
    """Finish a commit."""
    pachyderm(state).finish_commit(project, name, description)


def squash_commit(id_: Annotated[str, typer.Argument(metavar="ID")], state: State = None) -> None:
    """Take the commits with an ID out of history; what they changed stays with their children."""
    pachyderm(state).squash(id_)


def drop_commit(id_: Annotated[str, typer.Argument(metavar="ID")], state: State = None) -> None:
    """Remove the newest commits, those with an ID, and what they changed."""
    pachyderm(state).drop(id_)


def copy_file(
    source: FileName,
    target: FileName,
    append: Annotated[bool, typer.Option("--append", "-a", help="Append instead of replacing.")] = False,
    project: Project = "default",
    state: State = None,
) -> None:
    """Copy a file or folder, without moving its bytes."""
    pachyderm(state).copy_file(project, source, target, append=append)


def diff_file(
    new: FileName,
    old: Annotated[str, typer.Argument(help="REPO@BRANCH-OR-COMMIT:/PATH; without it the parent of NEW's commit.")] = "",
    project: Project = "default",
    state: State = None,
    output: Output = "table",
) -> None:
    """List what differs between two commits."""
    show([rows.difference(item) for item in pachyderm(state).differences(project, new, old)], output)


def put_file(
    target: Annotated[str, typer.Argument(help="REPO@BRANCH[:/PATH]")],
    file: Annotated[list[Path], typer.Option("--file", "-f", help="File or folder. May be repeated.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Put the files of folders.")] = False,
    append: Annotated[bool, typer.Option("--append", "-a", help="Append to files instead of replacing them.")] = False,
    project: Project = "default",
    state: State = None,
) -> None:
    """Put files into a branch, in one commit."""
    repo, _, rest = target.partition("@")
    branch, _, path = rest.partition(":")
    if not repo or not branch:
        raise UserError(f"target {target!r}: REPO@BRANCH:/PATH is expected")
    files = find_files(file, path or "/", recursive=recursive)
    with progress(files.values()) as advance:
        put_quickly = local_put(state)
        if put_quickly:
            commit = put_quickly(project, repo, branch, files, append=append, sent=advance)
        else:
            commit = pachyderm(state).put_files(project, repo, branch, files, append=append, sent=advance)
    typer.echo(f"{len(files)} files in commit {commit} of {project}/{repo}")


def find_files(sources: list[Path], path: str, *, recursive: bool) -> dict[str, str | Path]:
    """Path in the repo → local file, laid out as pachctl does: a folder's files below `path`, a single file at `path`.

    Raises:
        UserError: a source is missing, a symbolic link, or a folder without --recursive.
    """
    found: dict[str, str | Path] = {}
    base = "/" + path.strip("/")
    for source in sources:
        if source.is_dir():
            if not recursive:
                raise UserError(f"{source} is a folder; add -r to put what is in it")
            found.update(below(source, base.rstrip("/") + "/"))
        elif source.is_file():
            single = len(sources) == 1 and base != "/" and not path.endswith("/")
            found[base if single else f"{base.rstrip('/')}/{source.name}"] = source
        else:
            raise UserError(f"there is no file {source}")
    if not found:
        raise UserError("there are no files to put")
    return found


def below(folder: str | Path, inside: str = "") -> Iterator[tuple[str, str]]:
    """Give the files below a folder, each with its path in there.

    Raises:
        UserError: one is a symbolic link.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                why = "links are not put, for what they lead to may lie anywhere: put the file itself"
                raise UserError(f"{entry.path} is a symbolic link; {why}")
            if entry.is_dir():
                yield from below(entry.path, f"{inside}{entry.name}/")
            elif entry.is_file():
                yield inside + entry.name, entry.path


def get_file(
    target: FileName,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Get a folder.")] = False,
    out: Annotated[Path | None, typer.Option("--file", "-f", help="Where to write it (default: standard output).")] = None,
    project: Project = "default",
    state: State = None,
) -> None:
    """Get a file, or a folder with --recursive."""
    engine = pachyderm(state)
    if recursive:
        from pdk.engines.pachyderm.files import save

        if out is None:
            raise UserError("--recursive needs --file FOLDER")
        with progress(total=engine.file(project, target).size) as advance:
            for size in save(engine.archive(project, target), out, target.partition(":")[2] or "/"):
                advance(size)
        return
    if out is None:
        stream = typer.get_binary_stream("stdout")
        for part in engine.content(project, target):
            stream.write(part)
        return
    with progress(total=engine.file(project, target).size) as advance, out.open("wb") as file:
        for part in engine.content(project, target):
            advance(file.write(part))


COMMANDS = (
    Command("create project", create_project),
    Command("create repo", create_repo),
    Command("create branch", create_branch),
    Command("list project", list_project),
    Command("list repo", list_repo),
    Command("list branch", list_branch),
    Command("list commit", list_commit),
    Command("list file", list_file),
    Command("glob file", glob_file),
    Command("inspect project", inspect_project),
    Command("inspect repo", inspect_repo),
    Command("inspect branch", inspect_branch),
    Command("inspect commit", inspect_commit),
    Command("inspect file", inspect_file),
    Command("delete project", delete_project),
    Command("delete repo", delete_repo),
    Command("delete branch", delete_branch),
    Command("delete file", delete_file),
    Command("start commit", start_commit),
    Command("finish commit", finish_commit),
    Command("squash commit", squash_commit),
    Command("drop commit", drop_commit),
    Command("copy file", copy_file),
    Command("diff file", diff_file),
    Command("put file", put_file),
    Command("get file", get_file),
)
