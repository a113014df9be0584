"""How tables, and ``-o json``, show the nouns of the catalogue: one function for each, from what the engines answer to a row."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pdk.catalog.explain import first_line
from pdk.catalog.runs import Run
from pdk.engines.records import (
    Branch,
    Commit,
    Datum,
    Difference,
    Experiment,
    File,
    Job,
    Model,
    Pipeline,
    Project,
    Repo,
    Request,
    Service,
    Version,
)

Row = dict[str, Any]


def moment(value: datetime | None) -> str | None:
    """Return a time as it is shown."""
    return value.isoformat(timespec="seconds") if value else None


def seconds(began: datetime | None, ended: datetime | None) -> str:
    """Return how long something took, or has taken by now; empty where it has not begun."""
    if began is None:
        return ""
    return f"{(ended.timestamp() if ended else time.time()) - began.timestamp():.0f}s"


def project(item: Project) -> Row:
    """Show a project."""
    return {"project": item.name, "created": moment(item.created), "description": item.description}


def repo(item: Repo) -> Row:
    """Show a repo of a list."""
    return {"repo": item.name, "created": moment(item.created), "size": item.size, "description": item.description}


def one_repo(item: Repo) -> Row:
    """Show a repo that was asked for."""
    return {
        "repo": item.name, "created": moment(item.created), "size": item.size, "branches": ", ".join(item.branches),
        "description": item.description,
    }  # fmt: skip


def branch(item: Branch) -> Row:
    """Show a branch."""
    return {"branch": item.name, "head": item.head, "computed from": ", ".join(item.sources), "follows": item.trigger}


def commit(item: Commit) -> Row:
    """Show a commit."""
    return {
        "repo": item.repo,
        "commit": item.id,
        "origin": item.origin.upper(),
        "started": moment(item.started),
        "finished": moment(item.finished),
        "size": item.size or 0,
        "description": item.description,
        "error": first_line(item.error),
    }


def file(item: File) -> Row:
    """Show a file or folder."""
    return {"path": item.path, "type": item.kind, "size": item.size, "hash": item.hash}


def difference(item: Difference) -> Row:
    """Show a file that is not the same."""
    return {"change": item.change, "path": item.path, "old": item.old_size, "new": item.new_size}


def pipeline(item: Pipeline) -> Row:
    """Show a pipeline."""
    return {
        "pipeline": item.name, "version": item.version, "state": item.state, "last job": item.last_job, "reason": first_line(item.reason),
    }  # fmt: skip


def job(item: Job) -> Row:
    """Show a job."""
    return {
        "pipeline": item.pipeline,
        "id": item.id,
        "state": item.state.lower(),
        "duration": seconds(item.started, item.finished),
        "reason": first_line(item.reason),
    }


def datum(item: Datum) -> Row:
    """Show a datum."""
    return {"datum": item.id, "state": item.state, "files": ", ".join(item.files)}


def experiment(item: Experiment) -> Row:
    """Show an experiment."""
    return {
        "experiment": item.id,
        "name": item.name,
        "state": item.state.lower(),
        "progress": f"{item.progress:.0%}",
        "started": moment(item.started),
        "ended": moment(item.ended),
    }


def model(item: Model) -> Row:
    """Show a model."""
    return {"model": item.name, "versions": item.versions, "created": moment(item.created), "description": item.description}


def version(item: Version) -> Row:
    """Show a model version."""
    origin = item.provenance
    return {
        "model": item.model,
        "number": item.number,
        "version": item.name,
        "created": moment(item.created),
        "data": f"{origin.data.repo}@{origin.data.commit}" if origin.data else "",
        "code": origin.code.sha[:12] if origin.code else "",
        "experiment": origin.experiment,
        "metrics": numbers(origin.metrics),
        "checkpoint": item.checkpoint,
    }


def numbers(values: Mapping[str, float]) -> str:
    """Show numbers by their names."""
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(values.items()))


def service(item: Service) -> Row:
    """Show an InferenceService."""
    return {
        "service": f"{item.namespace}/{item.name}",
        "phase": item.phase,
        "version": item.version,
        "canary": item.canary,
        "url": item.url,
        "message": first_line(item.message),
    }


def rollout(item: Service) -> Row:
    """Show where a service stands between its versions."""
    shares = ", ".join(f"{revision.name} {revision.percent} %" for revision in item.revisions)
    return {
        "service": item.name,
        "version": item.version,
        "phase": item.phase,
        "canary": "" if item.canary is None else item.canary,
        "traffic": shares or "newest 100 %",
        "message": item.message,
    }


def request(item: Request) -> Row:
    """Show a request."""
    return {
        "request": item.id,
        "time": item.time,
        "model": item.model,
        "version": item.version,
        "code": item.code,
        "ms": item.ms,
        "data": f"{item.data_repo}@{item.data_commit}" if item.data_commit else "",
    }


def run(item: Run) -> Row:
    """Show a run: its steps as five words."""
    steps = {step.name: step.state for step in item.steps}
    return {"run": item.name, "state": item.state, **steps, "started": moment(item.started), "took": seconds(item.started, item.finished)}
