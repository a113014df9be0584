"""What each page holds: a title and sections of rows, for people and as JSON.

A cell is a plain value, or a dict with `text`, maybe `href` and `bad` (shown in red).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from pdk.catalog import Catalog
from pdk.catalog.explain import first_line
from pdk.engines.records import File
from pdk.errors import PdkError
from pdk.web.sources import LOG_LINES, Sources

Page = dict[str, Any]
Rows = list[dict[str, Any]]
BAD = frozenset({"failure", "killed", "unrunnable", "error", "canceled", "crashing", "failed"})
PREVIEW = 64 << 10  # bytes of a file that are shown


def link(text: Any, *parts: Any) -> dict[str, Any]:
    """Return a cell that leads to another page."""
    return {"text": text, "href": "/" + "/".join(quote(str(part), safe="") for part in parts)}


def state(text: Any) -> dict[str, Any]:
    """Return a cell with a state: red where something is wrong."""
    return {"text": text, "bad": str(text).lower() in BAD}


async def section(title: str, rows: Awaitable[Rows]) -> Page:
    """Return a section; an engine that does not answer makes it red, not the page."""
    try:
        return {"title": title, "rows": await rows}
    except PdkError as error:
        return {"title": title, "rows": [], "error": str(error)}


def when(value: datetime | None) -> str | None:
    """Return a cell with a time."""
    return value.isoformat(timespec="seconds") if value else None


def _repos(catalog: Catalog) -> Rows:
    return [
        {
            "project": project.name,
            "repo": link(repo.name, "repos", project.name, repo.name),
            "created": when(repo.created),
            "size": repo.size,
            "description": repo.description,
        }
        for project in catalog.projects()
        for repo in catalog.repos(project.name)
    ]


def _pipelines(catalog: Catalog) -> Rows:
    return [
        {
            "project": project.name,
            "pipeline": link(one.name, "pipelines", project.name, one.name),
            "version": one.version,
            "state": state(one.state),
            "last job": state(one.last_job),
            "reason": first_line(one.reason),
        }
        for project in catalog.projects()
        for one in catalog.pipelines(project.name)
    ]


def _jobs(catalog: Catalog, project: str, pipeline: str = "", number: int = 50) -> Rows:
    return [
        {
            "job": link(job.id, "jobs", project, job.pipeline, job.id),
            "pipeline": job.pipeline,
            "state": state(job.state.lower()),
            "started": when(job.started),
            "reason": first_line(job.reason),
        }
        for job in catalog.jobs(project, pipeline).list(number).items
    ]


def _runs(catalog: Catalog, number: int = 20) -> Rows:
    return [
        {
            "run": link(run.id, "runs", project.name, run.name),
            "project": project.name,
            "pipeline": run.flow,
            "state": state(run.state),
            **{step.name: state(step.state) for step in run.steps},
            "started": when(run.started),
        }
        for project in catalog.projects()
        for run in catalog.runs(project.name).list(number).items
    ]


def _experiments(catalog: Catalog) -> Rows:
    return [
        {
            "experiment": link(one.id, "experiments", one.id),
            "name": one.name,
            "state": state(one.state.lower()),
            "started": when(one.started),
            "ended": when(one.ended),
        }
        for one in catalog.experiments().list(50).items
    ]


def _models(catalog: Catalog) -> Rows:
    return [
        {"model": model.name, "version": one.number, "name": one.name, "checkpoint": one.checkpoint}
        for model in catalog.models()
        for one in catalog.versions(model.name).list(20).items
    ]


def _services(catalog: Catalog) -> Rows:
    return [
        {
            "service": one.name,
            "namespace": one.namespace,
            "state": state(one.phase),
            "version": one.version,
            "url": one.url,
            "reason": first_line(one.message),
        }
        for one in catalog.services()
    ]


async def overview(sources: Sources, _: Mapping[str, str]) -> Page:
    """Return everything at a glance."""
    parts = (("Runs", _runs), ("Pipelines", _pipelines), ("Services", _services), ("Experiments", _experiments), ("Repos", _repos))
    return {"title": "PDK", "sections": await asyncio.gather(*(section(title, sources.ask(rows)) for title, rows in parts))}


def listed(title: str, rows: Callable[[Catalog], Rows]) -> Callable[[Sources, Mapping[str, str]], Awaitable[Page]]:
    """Return a page with one section."""

    async def page(sources: Sources, _: Mapping[str, str]) -> Page:
        return {"title": title, "sections": [await section(title, sources.ask(rows))]}

    return page


def asked(build: Callable[[Catalog, Mapping[str, str]], Page]) -> Callable[[Sources, Mapping[str, str]], Awaitable[Page]]:
    """Return a page that the catalogue's answers make."""

    async def page(sources: Sources, names: Mapping[str, str]) -> Page:
        return await sources.ask(lambda catalog: build(catalog, names))

    return page


def repo(catalog: Catalog, names: Mapping[str, str]) -> Page:
    """Return a repo's branches and commits."""
    project, name = names["project"], names["repo"]
    branches = [
        {
            "branch": link(one.name, "files", project, name, one.name, ""),
            "head": one.head,
            "computed from": ", ".join(one.sources),
            "follows": one.trigger,
        }
        for one in catalog.branches(project, name)
    ]
    commits = [
        {
            "commit": link(one.id, "files", project, name, one.id, ""),
            "origin": one.origin,
            "started": when(one.started),
            "finished": when(one.finished),
            "size": one.size,
            "description": one.description,
            "error": first_line(one.error),
        }
        for one in catalog.commits(project, name).list(50).items
    ]
    return {"title": f"{project}/{name}", "sections": [{"title": "Branches", "rows": branches}, {"title": "Commits", "rows": commits}]}


def files(catalog: Catalog, names: Mapping[str, str]) -> Page:
    """Return the first entries of a folder, or the beginning of a file."""
    project, name, commit, path = names["project"], names["repo"], names["commit"], "/" + names["path"].strip("/")
    target = f"{name}@{commit}:{path}"
    title = f"{project}/{target}"
    if path != "/":
        found = catalog.files(project, name, commit).get(path)
        if found.kind == "file":
            begin = next(iter(catalog.engines.pachyderm.content(project, target)), b"")
            text = begin[:PREVIEW].decode("utf-8", "replace") if b"\0" not in begin[:PREVIEW] else "(not text)"
            return {"title": title, "sections": [{"title": "File", "rows": [_entry(found)]}], "text": text}
    shown = catalog.files(project, name, commit, path).list()
    base = f"/files/{quote(project)}/{quote(name)}/{quote(commit)}"
    rows = [{**_entry(one), "path": {"text": one.path, "href": f"{base}{quote(one.path)}"}} for one in shown.items]
    title_of = f"Files (the first {len(rows)})" if shown.after else "Files"
    return {"title": title, "sections": [{"title": title_of, "rows": rows}]}


def _entry(file: File) -> dict[str, Any]:
    return {"path": file.path, "type": file.kind, "size": file.size, "hash": file.hash}


def pipeline(catalog: Catalog, names: Mapping[str, str]) -> Page:
    """Return a pipeline, its jobs, its spec."""
    project, name = names["project"], names["pipeline"]
    one = catalog.pipelines(project).get(name)
    row = {"pipeline": one.name, "version": one.version, "state": state(one.state), "last job": state(one.last_job), "reason": one.reason}
    sections = [{"title": "Pipeline", "rows": [row]}, {"title": "Jobs", "rows": _jobs(catalog, project, name)}]
    return {"title": f"{project}/{name}", "sections": sections, "text": json.dumps(one.spec, indent=1)}


def job(catalog: Catalog, names: Mapping[str, str]) -> Page:
    """Return a job with its reason, its datums and the end of its log."""
    project, name, id_ = names["project"], names["pipeline"], names["id"]
    found = catalog.jobs(project).get(f"{name}@{id_}")
    row = {"pipeline": link(name, "pipelines", project, name), "state": state(found.state.lower()), "reason": found.reason}
    datums = [
        {"datum": one.id, "state": state(one.state), "files": ", ".join(one.files)}
        for one in catalog.datums(project, name, id_).list().items
    ]
    lines = deque((line.text for line in catalog.engines.pachyderm.logs(project, name, id_)), LOG_LINES)
    sections = [{"title": "Job", "rows": [row]}, {"title": "Datums", "rows": datums}]
    return {"title": f"{name}@{id_}", "sections": sections, "text": "\n".join(lines)}


async def jobs(sources: Sources, _: Mapping[str, str]) -> Page:
    """Return the newest jobs of every project."""
    projects = await sources.ask(lambda catalog: [project.name for project in catalog.projects()])
    sections = (section(project, sources.ask(partial(_jobs, project=project))) for project in projects)
    return {"title": "Jobs", "sections": await asyncio.gather(*sections)}


def run(catalog: Catalog, names: Mapping[str, str]) -> Page:
    """Return a commit's way to what serves it; where it is red, why."""
    found = catalog.runs(names["project"]).get(names["name"])
    steps = [
        {
            "step": step.name,
            "state": state(step.state),
            "what": step.what,
            "seconds": None if step.seconds is None else round(step.seconds, 1),
            "job": link(step.job, "jobs", found.project, *step.job.split("@")) if step.job else None,
        }
        for step in found.steps
    ]
    sections, text = [{"title": "Steps", "rows": steps}], ""
    if cause := catalog.cause(found):
        facts = {"reason": cause.reason, "in": cause.place, "ended": cause.ended, "first red": cause.first_red,
                 "last green": cause.last_green, "serves": ", ".join(cause.serves), "next": cause.next}  # fmt: skip
        rows = [{"": name, "value": {"text": value, "bad": name == "reason"}} for name, value in facts.items() if value]
        sections.insert(0, {"title": f"{cause.step} failed", "rows": rows})
        text = "\n".join(cause.lines)
    return {"title": f"Run {found.name}", "sections": sections, "text": text}


def experiment(catalog: Catalog, names: Mapping[str, str]) -> Page:
    """Return an experiment's trials and the end of the newest one's log."""
    number = int(names["id"])
    trials = list(catalog.trials(number))
    rows = [{"trial": one.id, "state": state(one.state.lower()), "batches": one.batches, "started": when(one.started)} for one in trials]
    lines = catalog.engines.determined.trial_log(trials[-1].id, LOG_LINES) if trials else []
    sections = [{"title": "Trials", "rows": rows}]
    return {"title": f"Experiment {number}", "sections": sections, "text": "".join(f"{line.text}\n" for line in lines)}


PAGES: dict[str, Callable[[Sources, Mapping[str, str]], Awaitable[Page]]] = {
    "/": overview,
    "/repos": listed("Repos", _repos),
    "/repos/{project}/{repo}": asked(repo),
    "/files/{project}/{repo}/{commit}/{path:path}": asked(files),
    "/runs": listed("Runs", _runs),
    "/runs/{project}/{name}": asked(run),
    "/pipelines": listed("Pipelines", _pipelines),
    "/pipelines/{project}/{pipeline}": asked(pipeline),
    "/jobs": jobs,
    "/jobs/{project}/{pipeline}/{id}": asked(job),
    "/experiments": listed("Experiments", _experiments),
    "/experiments/{id:int}": asked(experiment),
    "/models": listed("Models", _models),
    "/services": listed("Services", _services),
}
MENU = ("runs", "repos", "pipelines", "jobs", "experiments", "models", "services")
