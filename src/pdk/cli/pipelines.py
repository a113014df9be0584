"""Pipelines, jobs, logs and secrets in pachctl's grammar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pdk.cli import rows
from pdk.cli.commands import Command
from pdk.cli.common import Output, Project, State, catalog, pachyderm, show
from pdk.documents import Unreadable, read_all_yaml
from pdk.errors import UserError

JobName = Annotated[str, typer.Argument(help="PIPELINE@ID, or PIPELINE for its newest job.")]
SpecFile = Annotated[
    Path, typer.Option("--file", "-f", help="Spec in JSON or YAML; several in one file are taken in their order. A .jsonnet is a template.")
]
Env = Annotated[list[str] | None, typer.Option(help="KEY=VALUE that replaces a variable of transform.env. May be repeated.")]
Arguments = Annotated[list[str] | None, typer.Option("--arg", help="KEY=VALUE for a jsonnet template. May be repeated.")]


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


def send_specs(
    file: Path, env: list[str] | None, arg: list[str] | None, project: str, state: Path | None, *, change: bool, reprocess: bool
) -> None:
    """Create or update the pipelines of a file."""
    engine, changes = pachyderm(state), pairs(env, "--env")
    specs = engine.render(file.read_text(), pairs(arg, "--arg")) if file.suffix == ".jsonnet" else read_specs(file)
    for spec in specs:
        spec.setdefault("pipeline", {}).setdefault("project", {"name": project})
        if changes:
            spec.setdefault("transform", {}).setdefault("env", {}).update(changes)
        engine.create_pipeline(spec, update=change, reprocess=reprocess)


def create_pipeline(
    file: SpecFile,
    env: Env = None,
    arg: Arguments = None,
    update: Annotated[bool, typer.Option(help="Change it where it exists.")] = False,
    project: Project = "default",
    state: State = None,
) -> None:
    """Create a pipeline from a spec."""
    send_specs(file, env, arg, project, state, change=update, reprocess=False)


def update_pipeline(
    file: SpecFile,
    env: Env = None,
    arg: Arguments = None,
    reprocess: Annotated[bool, typer.Option(help="Run every datum again, although its content is the same.")] = False,
    project: Project = "default",
    state: State = None,
) -> None:
    """Update a pipeline from a spec."""
    send_specs(file, env, arg, project, state, change=True, reprocess=reprocess)


def read_specs(file: Path) -> list[dict[str, Any]]:
    """Return the specs of a file.

    Raises:
        UserError: it cannot be read as such.
    """
    try:
        documents = [document for document in read_all_yaml(file.read_bytes()) if document is not None]
    except (OSError, Unreadable) as error:
        raise UserError(f"the spec {file} cannot be read: {error}") from error
    specs = [spec for document in documents for spec in (document if isinstance(document, list) else [document])]
    if not specs or not all(isinstance(spec, dict) for spec in specs):
        raise UserError(f"{file} holds no pipeline spec")
    return specs


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


def list_pipeline(project: Project = "default", state: State = None, output: Output = "table") -> None:
    """List pipelines, newest first."""
    show([rows.pipeline(item) for item in catalog(state).pipelines(project)], output)


def inspect_pipeline(name: str, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """Show a pipeline and its effective spec."""
    found = catalog(state).pipelines(project).get(name)
    row, spec = rows.pipeline(found), dict(found.spec or {})
    show([{**row, "spec": spec} if output == "json" else row], output)
    if output != "json":
        typer.echo(json.dumps(spec, indent=1))


def delete_pipeline(
    name: str,
    force: Annotated[bool, typer.Option("--force", "-f", help="Even where another pipeline reads its output.")] = False,
    keep_repo: Annotated[bool, typer.Option(help="Keep what it wrote.")] = False,
    project: Project = "default",
    state: State = None,
) -> None:
    """Delete a pipeline with its jobs and its output."""
    pachyderm(state).delete_pipeline(project, name, force=force, keep_repo=keep_repo)


def start_pipeline(name: str, project: Project = "default", state: State = None) -> None:
    """Let a stopped pipeline go on."""
    pachyderm(state).start_pipeline(project, name)


def stop_pipeline(name: str, project: Project = "default", state: State = None) -> None:
    """Pause a pipeline; its open jobs are killed."""
    pachyderm(state).stop_pipeline(project, name)


def list_job(
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p")] = None,
    project: Project = "default",
    state: State = None,
    output: Output = "table",
) -> None:
    """List jobs, newest first."""
    show([rows.job(job) for job in catalog(state).jobs(project, pipeline or "")], output)


def list_datum(name: JobName, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """List the datums of a job."""
    found = catalog(state)
    job = found.jobs(project).get(name)
    show([rows.datum(item) for item in found.datums(project, job.pipeline, job.id)], output)


def inspect_job(name: JobName, project: Project = "default", state: State = None, output: Output = "table") -> None:
    """Show a job with its whole reason."""
    job = catalog(state).jobs(project).get(name)
    show([{**rows.job(job), "reason": job.reason}], output)


def stop_job(
    name: JobName,
    reason: Annotated[str, typer.Option(help="What is kept as the job's reason.")] = "",
    project: Project = "default",
    state: State = None,
) -> None:
    """Kill a job."""
    found = catalog(state)
    job = found.jobs(project).get(name)
    found.engines.pachyderm.stop_job(project, job.pipeline, job.id, reason)


def logs(
    name: JobName, follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    project: Project = "default", state: State = None,
) -> None:  # fmt: skip
    """Print what a job's program printed; with --follow, exit 1 when the job fails."""
    found = catalog(state)
    job = found.jobs(project).get(name)
    engine = found.engines.pachyderm
    for line in engine.logs(project, job.pipeline, job.id, follow=follow):
        typer.echo(line.text)
    job = engine.job(project, job.pipeline, job.id)
    if follow and job.state != "SUCCESS":
        typer.echo(f"job {job.pipeline}@{job.id}: {job.state.lower()}: {job.reason}")
        raise typer.Exit(1)


COMMANDS = (
    Command("create pipeline", create_pipeline),
    Command("update pipeline", update_pipeline),
    Command("create secret", create_secret),
    Command("list pipeline", list_pipeline),
    Command("inspect pipeline", inspect_pipeline),
    Command("delete pipeline", delete_pipeline),
    Command("start pipeline", start_pipeline),
    Command("stop pipeline", stop_pipeline),
    Command("list job", list_job),
    Command("list datum", list_datum),
    Command("inspect job", inspect_job),
    Command("stop job", stop_job),
    Command("logs", logs),
)
