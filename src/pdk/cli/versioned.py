"""`pdk create|put|list|inspect|logs`: versioned data and pipelines, in pachctl's grammar."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from pdk.cli.common import Output, Project, State, console, pachyderm, show
from pdk.engines.pachyderm import Job
from pdk.errors import NotFound, UserError

create = typer.Typer(help="Create a project, repo, pipeline or secret.", no_args_is_help=True)
put = typer.Typer(help="Put files.", no_args_is_help=True)
list_ = typer.Typer(help="List jobs.", no_args_is_help=True)
inspect = typer.Typer(help="Show a job.", no_args_is_help=True)

JobName = Annotated[str, typer.Argument(help="PIPELINE@ID, or PIPELINE for its newest job.")]


def pairs(values: list[str] | None, option: str) -> dict[str, str]:
    """KEY=VALUE options.

    Raises:
        UserError: one without '='.
    """
    found: dict[str, str] = {}
    for value in values or []:
        key, separator, rest = value.partition("=")
        if not separator or not key:
            raise UserError(f"{option} {value!r}: KEY=VALUE is expected")
        found[key] = rest
    return found


@create.command("project")
def create_project(name: str, description: Annotated[str, typer.Option("--description", "-d")] = "", state: State = None) -> None:
    """Create a project."""
    pachyderm(state).create_project(name, description)


@create.command("repo")
def create_repo(
    name: str, description: Annotated[str, typer.Option("--description", "-d")] = "", project: Project = "default", state: State = None
) -> None:
    """Create a repo."""
    pachyderm(state).create_repo(project, name, description)


@create.command("pipeline")
def create_pipeline(
    file: Annotated[Path, typer.Option("--file", "-f", help="Spec in JSON or YAML; several in one file are taken in their order.")],
    env: Annotated[list[str] | None, typer.Option(help="KEY=VALUE that replaces a variable of transform.env. May be repeated.")] = None,
    update: Annotated[bool, typer.Option(help="Change it where it exists.")] = False,
    project: Project = "default",
    state: State = None,
) -> None:
    """Create a pipeline from a spec."""
    engine, changes = pachyderm(state), pairs(env, "--env")
    for spec in read_specs(file):
        spec.setdefault("pipeline", {}).setdefault("project", {"name": project})
        if changes:
            spec.setdefault("transform", {}).setdefault("env", {}).update(changes)
        engine.create_pipeline(spec, update=update)


def read_specs(file: Path) -> list[dict[str, Any]]:
    """The specs of a file.

    Raises:
        UserError: it cannot be read as such.
    """
    try:
        documents = [document for document in yaml.safe_load_all(file.read_text()) if document is not None]
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"the spec {file} cannot be read: {error}") from error
    specs = [spec for document in documents for spec in (document if isinstance(document, list) else [document])]
    if not specs or not all(isinstance(spec, dict) for spec in specs):
        raise UserError(f"{file} holds no pipeline spec")
    return specs


@create.command("secret")
def create_secret(
    name: str,
    literal: Annotated[list[str] | None, typer.Option("--from-file", help="KEY=FILE: the file's content becomes the key's value.")] = None,
    state: State = None,
) -> None:
    """Create a secret for pipelines; values are read from files, so that they do not show in a process list."""
    data = {key: Path(path).read_text().rstrip("\n") for key, path in pairs(literal, "--from-file").items()}
    if not data:
        raise UserError("a secret needs at least one --from-file KEY=FILE")
    pachyderm(state).create_secret(name, data)


@put.command("file")
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
    commit = pachyderm(state).put_files(project, repo, branch, files, append=append)
    console.print(f"{len(files)} files in commit {commit} of {project}/{repo}", markup=False)


def find_files(sources: list[Path], path: str, *, recursive: bool) -> dict[str, Path]:
    """Path in the repo → local file, laid out as pachctl does: a folder's files below `path`, a single file at `path`.

    Raises:
        UserError: a source is missing, or a folder without --recursive.
    """
    found: dict[str, Path] = {}
    base = "/" + path.strip("/")
    for source in sources:
        if source.is_dir():
            if not recursive:
                raise UserError(f"{source} is a folder; add -r to put what is in it")
            inner = [entry for entry in sorted(source.rglob("*")) if entry.is_file()]
            found.update({f"{base.rstrip('/')}/{entry.relative_to(source).as_posix()}": entry for entry in inner})
        elif source.is_file():
            single = len(sources) == 1 and base != "/" and not path.endswith("/")
            found[base if single else f"{base.rstrip('/')}/{source.name}"] = source
        else:
            raise UserError(f"there is no file {source}")
    if not found:
        raise UserError("there are no files to put")
    return found


def find_job(name: str, project: str, state: Path | None) -> Job:
    """The job that a command names.

    Raises:
        NotFound: the pipeline has no job.
    """
    pipeline, _, id_ = name.partition("@")
    engine = pachyderm(state)
    if id_:
        return engine.job(project, pipeline, id_)
    newest = next(iter(engine.jobs(project, pipeline)), None)
    if newest is None:
        raise NotFound(f"pipeline {project}/{pipeline} has no job yet; commit data to its input")
    return newest


def row(job: Job) -> dict[str, Any]:
    """A job as a table shows it."""
    ended = job.finished.timestamp() if job.finished else time.time()
    duration = f"{ended - job.started.timestamp():.0f}s" if job.started else ""
    reason = job.reason.partition("\n")[0]
    return {"pipeline": job.pipeline, "id": job.id, "state": job.state.lower(), "duration": duration, "reason": reason}


@list_.command("job")
def list_job(
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p")] = None,
    project: Project = "default",
    state: State = None,
    output: Output = "table",
) -> None:
    """List jobs, newest first."""
    show([row(job) for job in pachyderm(state).jobs(project, pipeline)], output)


@inspect.command("job")
def inspect_job(name: JobName, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """Show a job with its whole reason."""
    job = find_job(name, project, state)
    show([{**row(job), "reason": job.reason}], output)


def logs(
    name: JobName, follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    project: Project = "default", state: State = None,
) -> None:  # fmt: skip
    """Print what a job's program printed; with --follow, exit 1 when the job fails."""
    job = find_job(name, project, state)
    engine = pachyderm(state)
    for line in engine.logs(project, job.pipeline, job.id, follow=follow):
        console.print(line, markup=False)
    job = engine.job(project, job.pipeline, job.id)
    if follow and job.state != "SUCCESS":
        console.print(f"job {job.pipeline}@{job.id}: {job.state.lower()}: {job.reason}", markup=False)
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, group in (("create", create), ("put", put), ("list", list_), ("inspect", inspect)):
        app.add_typer(group, name=name)
    app.command()(logs)
