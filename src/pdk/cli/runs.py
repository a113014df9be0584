"""Runs, experiments, models, services and requests: what a commit became, and where it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pdk.cli import rows
from pdk.cli.commands import Command
from pdk.cli.common import Output, Project, State, catalog, show
from pdk.errors import UserError

if TYPE_CHECKING:
    from pdk.catalog import Cause, Collection, Run

T = TypeVar("T")
Number = Annotated[int, typer.Option("--number", "-n", help="At most so many; 0 for all.")]
After = Annotated[str, typer.Option("--after", help="Go on after the last one of the list before.")]
SHORT = 20  # items of a list that a person looks at
COLOURS = {"ok": "green", "running": "cyan", "waiting": "yellow", "failed": "red"}
SIGNS = {"ok": "●", "running": "◐", "waiting": "○", "failed": "✕"}


def page(found: Collection[T], row: Callable[[T], dict[str, Any]], number: int, after: str, output: str) -> None:
    """Show a page of a list; how to go on is said on standard error."""
    shown = found.list(number, after)
    show([row(item) for item in shown.items], output)
    if shown.after:
        typer.echo(f"there are more: --after {shown.after}, or --number 0 for all", err=True)


def list_run(
    number: Number = SHORT, after: After = "", project: Project = "default", state: State = None, output: Output = "table"
) -> None:
    """List runs, newest first: commits on their way to what serves them."""
    page(catalog(state).runs(project), rows.run, number, after, output)


def list_experiment(number: Number = SHORT, after: After = "", state: State = None, output: Output = "table") -> None:
    """List Determined's experiments, newest first."""
    page(catalog(state).experiments(), rows.experiment, number, after, output)


def list_model(number: Number = 0, after: After = "", state: State = None, output: Output = "table") -> None:
    """List the models of the registry."""
    page(catalog(state).models(), rows.model, number, after, output)


def list_version(model: str, number: Number = SHORT, after: After = "", state: State = None, output: Output = "table") -> None:
    """List the versions of a model, newest first, with what they were trained on."""
    page(catalog(state).versions(model), rows.version, number, after, output)


def list_service(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="One namespace alone.")] = "",
    state: State = None,
    output: Output = "table",
) -> None:
    """List InferenceServices, and which version each was set to."""
    page(catalog(state).services(namespace), rows.service, 0, "", output)


def list_request(number: Number = SHORT, after: After = "", state: State = None, output: Output = "table") -> None:
    """List requests that were answered, as the request log has them."""
    page(catalog(state).requests(), rows.request, number, after, output)


def inspect_run(
    name: Annotated[str, typer.Argument(help="ID of a commit, or PIPELINE@ID by the pipeline that trains.")],
    project: Project = "default",
    state: State = None,
    output: Output = "table",
) -> None:
    """Show a commit's way to what serves it, and where it is red, why; exits 1 then."""
    found = catalog(state)
    run = found.runs(project).get(name)
    cause = found.cause(run)
    if output == "json":
        steps = [{**asdict(step), "seconds": step.seconds} for step in run.steps]
        typer.echo(json.dumps({**asdict(run), "steps": steps, "cause": cause and asdict(cause)}, indent=1, default=str))
    elif output == "table":
        typer.echo("\n".join([*told(run), *(why(cause) if cause else ())]))
    else:
        raise UserError(f"--output {output!r}: table or json is expected")
    if cause:
        raise typer.Exit(1)


def told(run: Run) -> Iterator[str]:
    """Give a run as lines: a step each."""
    yield f"run {run.name} ({typer.style(run.state, fg=COLOURS[run.state])})"
    for step in run.steps:
        took = f"{step.seconds:.1f} s" if step.seconds is not None else ""
        state = typer.style(f"{SIGNS[step.state]} {step.state:8}", fg=COLOURS[step.state])
        yield f"  {step.name:8} {state} {took:>9}  {step.what}".rstrip()


def why(cause: Cause) -> Iterator[str]:
    """Give a cause as lines: the headline first."""
    yield ""
    yield typer.style(f"{cause.step} failed: {cause.reason}", fg="red")
    yield from _facts(
        {
            "in": cause.place,
            "ended": cause.ended,
            "job": cause.job,
            "red since": cause.first_red,
            "last green": cause.last_green or "none before",
        }
    )
    differ = cause.differences
    told = [f"{count} files {change}" for change, count in sorted(differ.files.items())]
    told += [f"code {differ.code[0][:12]} → {differ.code[1][:12]}"] if differ.code else []
    told += [f"pipeline version {differ.pipeline[0]} → {differ.pipeline[1]}"] if differ.pipeline else []
    told += [f"config {key}: {before} → {now}" for key, (before, now) in differ.config.items()]
    if cause.last_green:
        yield "  what is not as in the last green run:" + ("" if told else " nothing that is known")
        yield from (f"    {line}" for line in told)
        yield from (f"      {path}" for path in differ.paths)
    yield from _facts({"serves": ", ".join(cause.serves) or "nothing of this flow", "next": cause.next})


def _facts(values: dict[str, str]) -> Iterable[str]:
    return [f"  {name + ':':12}{value}" for name, value in values.items() if value]


COMMANDS = (
    Command("list run", list_run),
    Command("list experiment", list_experiment),
    Command("list model", list_model),
    Command("list version", list_version),
    Command("list service", list_service),
    Command("list request", list_request),
    Command("inspect run", inspect_run),
)
