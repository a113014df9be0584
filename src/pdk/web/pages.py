"""What each page holds: a title and sections of rows, for people and as JSON.

A cell is a plain value, or a dict with `text`, maybe `href` and `bad` (shown in red).
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from pdk.errors import PdkError
from pdk.web.sources import LOG_LINES, Sources

Page = dict[str, Any]
Rows = list[dict[str, Any]]
BAD = frozenset({"failure", "killed", "unrunnable", "error", "canceled", "false", "crashing", "failed"})
PREVIEW = 64 << 10  # bytes of a file that are shown


def link(text: Any, *parts: Any) -> dict[str, Any]:
    """A cell that leads to another page."""
    return {"text": text, "href": "/" + "/".join(quote(str(part), safe="") for part in parts)}


def state(text: Any) -> dict[str, Any]:
    """A cell with a state: red where something is wrong."""
    return {"text": text, "bad": str(text).lower() in BAD}


async def section(title: str, rows: Awaitable[Rows]) -> Page:
    """A section; an engine that does not answer makes it red, not the page."""
    try:
        return {"title": title, "rows": await rows}
    except PdkError as error:
        return {"title": title, "rows": [], "error": str(error)}


async def _projects(sources: Sources) -> list[str]:
    return [row["project"] for row in await sources.pachyderm(lambda engine: engine.projects())]


async def _repos(sources: Sources) -> Rows:
    rows: Rows = []
    for project in await _projects(sources):
        for row in await sources.pachyderm(lambda engine, project=project: engine.repos(project)):  # type: ignore[misc]
            rows.append({"project": project, **row, "repo": link(row["repo"], "repos", project, row["repo"])})
    return rows


async def _pipelines(sources: Sources) -> Rows:
    rows: Rows = []
    for project in await _projects(sources):
        for row in await sources.pachyderm(lambda engine, project=project: engine.pipelines(project)):  # type: ignore[misc]
            name = row["pipeline"]
            shown = {**row, "state": state(row["state"]), "last job": state(row["last job"])}
            rows.append({"project": project, **shown, "pipeline": link(name, "pipelines", project, name)})
    return rows


async def _jobs(sources: Sources, project: str, pipeline: str | None, number: int = 50) -> Rows:
    found = await sources.pachyderm(lambda engine: engine.jobs(project, pipeline))
    return [
        {
            "job": link(job.id, "jobs", project, job.pipeline, job.id),
            "pipeline": job.pipeline,
            "state": state(job.state.lower()),
            "started": job.started and job.started.isoformat(timespec="seconds"),
            "reason": job.reason.partition("\n")[0],
        }
        for job in itertools.islice(found, number)
    ]


async def _experiments(sources: Sources) -> Rows:
    found = (await sources.determined("/api/v1/experiments?limit=50&orderBy=ORDER_BY_DESC"))["experiments"]
    return [
        {
            "experiment": link(row["id"], "experiments", row["id"]),
            "name": row.get("name"),
            "state": state(row["state"].removeprefix("STATE_").lower()),
            "started": row.get("startTime"),
            "ended": row.get("endTime"),
        }
        for row in found
    ]


async def _models(sources: Sources) -> Rows:
    rows: Rows = []
    for model in (await sources.determined("/api/v1/models"))["models"]:
        versions = (await sources.determined(f"/api/v1/models/{quote(model['name'], safe='')}/versions"))["modelVersions"]
        for version in versions[:20]:
            checkpoint = version["checkpoint"]["uuid"]
            rows.append({"model": model["name"], "version": version["version"], "name": version.get("name"), "checkpoint": checkpoint})
    return rows


async def _services(sources: Sources) -> Rows:
    rows: Rows = []
    for item in (await sources.kubernetes("/apis/serving.kserve.io/v1beta1/inferenceservices"))["items"]:
        status = item.get("status") or {}
        ready: dict[str, Any] = next((entry for entry in status.get("conditions") or () if entry["type"] == "Ready"), {})
        rows.append(
            {
                "service": item["metadata"]["name"],
                "namespace": item["metadata"]["namespace"],
                "ready": state(ready.get("status", "Unknown")),
                "url": status.get("url"),
                "reason": ready.get("message") or ready.get("reason"),
            }
        )
    return rows


async def overview(sources: Sources, _: Mapping[str, str]) -> Page:
    """Everything at a glance."""
    parts = (("Pipelines", _pipelines), ("Services", _services), ("Experiments", _experiments), ("Repos", _repos))
    return {"title": "PDK", "sections": [await section(title, rows(sources)) for title, rows in parts]}


def listed(title: str, rows: Callable[[Sources], Awaitable[Rows]]) -> Callable[[Sources, Mapping[str, str]], Awaitable[Page]]:
    """A page with one section."""

    async def page(sources: Sources, _: Mapping[str, str]) -> Page:
        return {"title": title, "sections": [await section(title, rows(sources))]}

    return page


async def repo(sources: Sources, names: Mapping[str, str]) -> Page:
    """A repo's branches and commits."""
    project, name = names["project"], names["repo"]
    branches = await sources.pachyderm(lambda engine: engine.branches(project, name))
    found = await sources.pachyderm(lambda engine: engine.commits(project, name, 50))
    rows = [{**row, "branch": link(row["branch"], "files", project, name, row["branch"], "")} for row in branches]
    shown = [{**row, "commit": link(row["commit"], "files", project, name, row["commit"], "")} for row in found]
    return {"title": f"{project}/{name}", "sections": [{"title": "Branches", "rows": rows}, {"title": "Commits", "rows": shown}]}


async def files(sources: Sources, names: Mapping[str, str]) -> Page:
    """A folder's entries, or the beginning of a file."""
    project, name, commit, path = names["project"], names["repo"], names["commit"], "/" + names["path"].strip("/")
    target = f"{name}@{commit}:{path}"
    title = f"{project}/{target}"
    if path != "/":
        row = await sources.pachyderm(lambda engine: engine.file_row(project, target))
        if row["type"] == "file":
            begin = await sources.pachyderm(lambda engine: next(iter(engine.content(project, target)), b""))
            text = begin[:PREVIEW].decode("utf-8", "replace") if b"\0" not in begin[:PREVIEW] else "(not text)"
            return {"title": title, "sections": [{"title": "File", "rows": [row]}], "text": text}
    entries = await sources.pachyderm(lambda engine: engine.files(project, target))
    rows = [
        {
            **row,
            "path": {"text": row["path"], "href": f"/files/{quote(project)}/{quote(name)}/{quote(commit)}{quote(row['path'])}"},
        }
        for row in entries
    ]
    return {"title": title, "sections": [{"title": "Files", "rows": rows}]}


async def pipeline(sources: Sources, names: Mapping[str, str]) -> Page:
    """A pipeline, its jobs, its spec."""
    project, name = names["project"], names["pipeline"]
    row = await sources.pachyderm(lambda engine: engine.pipeline_row(project, name))
    spec = row.pop("spec")
    jobs = await section("Jobs", _jobs(sources, project, name))
    return {"title": f"{project}/{name}", "sections": [{"title": "Pipeline", "rows": [row]}, jobs], "text": spec}


async def job(sources: Sources, names: Mapping[str, str]) -> Page:
    """A job with its reason, its datums and the end of its log."""
    project, name, id_ = names["project"], names["pipeline"], names["id"]
    found = await sources.pachyderm(lambda engine: engine.job(project, name, id_))
    datums = await sources.pachyderm(lambda engine: engine.datums(project, name, id_))
    lines = await sources.pachyderm(lambda engine: list(engine.logs(project, name, id_, follow=False)))
    row = {"pipeline": link(name, "pipelines", project, name), "state": state(found.state.lower()), "reason": found.reason}
    shown = [{**datum, "state": state(datum["state"])} for datum in datums]
    sections = [{"title": "Job", "rows": [row]}, {"title": "Datums", "rows": shown}]
    return {"title": f"{name}@{id_}", "sections": sections, "text": "\n".join(lines[-LOG_LINES:])}


async def jobs(sources: Sources, _: Mapping[str, str]) -> Page:
    """The newest jobs of every project."""
    projects = await _projects(sources)
    return {"title": "Jobs", "sections": [await section(project, _jobs(sources, project, None)) for project in projects]}


async def experiment(sources: Sources, names: Mapping[str, str]) -> Page:
    """An experiment's trials and the end of the newest one's log."""
    number = int(names["id"])
    trials = (await sources.determined(f"/api/v1/experiments/{number}/trials"))["trials"]
    rows = [
        {"trial": row["id"], "state": state(row["state"].removeprefix("STATE_").lower()), "started": row.get("startTime")} for row in trials
    ]
    text = ""
    if trials:
        answer = await sources.determined(f"/api/v1/trials/{trials[-1]['id']}/logs?limit={LOG_LINES}&orderBy=ORDER_BY_DESC", stream=True)
        text = "".join(entry["result"]["message"].rstrip("\n") + "\n" for entry in reversed(answer) if "result" in entry)
    return {"title": f"Experiment {number}", "sections": [{"title": "Trials", "rows": rows}], "text": text}


PAGES: dict[str, Callable[[Sources, Mapping[str, str]], Awaitable[Page]]] = {
    "/": overview,
    "/repos": listed("Repos", _repos),
    "/repos/{project}/{repo}": repo,
    "/files/{project}/{repo}/{commit}/{path:path}": files,
    "/pipelines": listed("Pipelines", _pipelines),
    "/pipelines/{project}/{pipeline}": pipeline,
    "/jobs": jobs,
    "/jobs/{project}/{pipeline}/{id}": job,
    "/experiments": listed("Experiments", _experiments),
    "/experiments/{id:int}": experiment,
    "/models": listed("Models", _models),
    "/services": listed("Services", _services),
}
MENU = ("repos", "pipelines", "jobs", "experiments", "models", "services")
