"""One question, one answer: every noun of the engines as a collection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pdk.catalog import requests
from pdk.catalog.causes import Cause, Causes
from pdk.catalog.engines import Engines
from pdk.catalog.paging import Collection
from pdk.catalog.runs import Run, Runs
from pdk.engines.records import (
    Branch,
    Checkpoint,
    Commit,
    Datum,
    Difference,
    Experiment,
    File,
    Job,
    Metrics,
    Model,
    Pipeline,
    Project,
    Repo,
    Request,
    Revision,
    Service,
    Trial,
    Version,
)
from pdk.errors import NotFound, UserError

EXPERIMENTS = 100  # that are asked for at once


class Catalog:
    """Everything that three engines know, noun by noun.

    A method says where to look and gives a `Collection`, which has `list`, `get` and `watch`::

        catalog.commits("default", "images").list(limit=20)
        catalog.jobs("default").get("train@6f1c…")

    Args:
        engines: whom to ask.
    """

    def __init__(self, engines: Engines) -> None:
        self.engines = engines

    def projects(self) -> Collection[Project]:
        """Return the projects."""
        return Collection(
            "project",
            lambda: self.engines.pachyderm.projects(),
            lambda item: item.name,
            lambda name: self.engines.pachyderm.project(name),
        )

    def repos(self, project: str) -> Collection[Repo]:
        """Return the repos of a project."""
        return Collection(
            "repo",
            lambda: self.engines.pachyderm.repos(project),
            lambda item: item.name,
            lambda name: self.engines.pachyderm.repo(project, name),
        )

    def branches(self, project: str, repo: str) -> Collection[Branch]:
        """Return the branches of a repo."""
        return Collection(
            "branch",
            lambda: self.engines.pachyderm.branches(project, repo),
            lambda item: item.name,
            lambda name: self.engines.pachyderm.branch(project, f"{repo}@{name}"),
        )

    def commits(self, project: str, repo: str, branch: str = "") -> Collection[Commit]:
        """Return the commits of a repo, or of a branch's line, newest first; `get` takes an ID, a branch or ancestry too."""
        target = f"{repo}@{branch}" if branch else repo
        return Collection(
            "commit",
            lambda: self.engines.pachyderm.commits(project, target),
            lambda item: item.id,
            lambda name: self.engines.pachyderm.commit(project, f"{repo}@{name}"),
        )

    def files(self, project: str, repo: str, commit: str, folder: str = "/") -> Collection[File]:
        """Return the entries of a folder of a commit, by path."""
        target = f"{repo}@{commit}:{folder}"
        return Collection(
            "file",
            lambda: self.engines.pachyderm.files(project, target),
            lambda item: item.path,
            lambda path: self.engines.pachyderm.file(project, f"{repo}@{commit}:{path}"),
            lambda after: self.engines.pachyderm.files(project, target, after=after),
        )

    def differences(self, project: str, repo: str, new: str, old: str = "") -> Collection[Difference]:
        """Return the files that are not the same in two commits of a repo, or in a commit and its parent."""
        before = f"{repo}@{old}" if old else ""
        return Collection(
            "difference", lambda: self.engines.pachyderm.differences(project, f"{repo}@{new}", before), lambda item: item.path
        )

    def pipelines(self, project: str) -> Collection[Pipeline]:
        """Return the pipelines of a project, newest first."""
        return Collection(
            "pipeline",
            lambda: self.engines.pachyderm.pipelines(project),
            lambda item: item.name,
            lambda name: self.engines.pachyderm.pipeline(project, name),
        )

    def jobs(self, project: str, pipeline: str = "") -> Collection[Job]:
        """Return the jobs of a project or of a pipeline, newest first, each named PIPELINE@ID; PIPELINE alone is its newest one."""

        def one(name: str) -> Job:
            of, _, id_ = name.partition("@")
            if id_:
                return self.engines.pachyderm.job(project, of, id_)
            newest = next(iter(self.engines.pachyderm.jobs(project, of)), None)
            if newest is None:
                raise NotFound(f"pipeline {project}/{of} has no job yet; commit data to its input")
            return newest

        return Collection("job", lambda: self.engines.pachyderm.jobs(project, pipeline or None), lambda job: job.name, one)

    def datums(self, project: str, pipeline: str, job: str) -> Collection[Datum]:
        """Return the datums of a job."""
        return Collection("datum", lambda: self.engines.pachyderm.datums(project, pipeline, job), lambda item: item.id)

    def experiments(self) -> Collection[Experiment]:
        """Return the experiments, newest first; `get` brings the config too."""

        def following(after: str) -> Iterator[Experiment]:
            before = int(after or 0)
            while found := self.engines.determined.experiments(limit=EXPERIMENTS, before=before):
                yield from found
                before = found[-1].id

        return Collection(
            "experiment",
            lambda: following(""),
            lambda item: str(item.id),
            lambda name: self.engines.determined.experiment(_number(name, "experiment")),
            following,
        )

    def trials(self, experiment: int) -> Collection[Trial]:
        """Return the trials of an experiment, oldest first."""
        return Collection(
            "trial",
            lambda: self.engines.determined.trials(experiment),
            lambda item: str(item.id),
            lambda name: self.engines.determined.trial(_number(name, "trial")),
        )

    def metrics(self, trial: int, group: str = "validation") -> Collection[Metrics]:
        """Return what a trial reported in a group, in the order of its batches, each named by them."""
        return Collection("report", lambda: self.engines.determined.trial_metrics(trial, group), lambda item: str(item.batches))

    def checkpoints(self, experiment: int) -> Collection[Checkpoint]:
        """Return the checkpoints of an experiment, newest first."""
        return Collection(
            "checkpoint",
            lambda: self.engines.determined.checkpoints(experiment),
            lambda item: item.uuid,
            lambda uuid: self.engines.determined.checkpoint(uuid),
        )

    def models(self) -> Collection[Model]:
        """Return the models of the registry."""
        return Collection(
            "model", lambda: self.engines.determined.models(), lambda item: item.name, lambda name: self.engines.determined.model(name)
        )

    def versions(self, model: str) -> Collection[Version]:
        """Return the versions of a model, newest first, each named by the job that registered it, or by its number where it has no name."""

        def every() -> list[Version]:
            if not (found := self.engines.determined.versions(model)):
                self.engines.determined.model(model)  # says that there is none
            return found

        return Collection("version", every, lambda item: item.name or str(item.number))

    def services(self, namespace: str = "") -> Collection[Service]:
        """Return the InferenceServices of a namespace, or of all, each named NAMESPACE/NAME."""

        def one(name: str) -> Service:
            of, _, service = name.rpartition("/")
            if not (of or namespace):
                raise UserError(f"service {name!r}: NAMESPACE/NAME is expected")
            return self.engines.kserve.service(of or namespace, service)

        return Collection("service", lambda: self.engines.kserve.services(namespace), lambda item: f"{item.namespace}/{item.name}", one)

    def revisions(self, namespace: str, service: str) -> Collection[Revision]:
        """Return the revisions of a service that get requests."""
        return Collection("revision", lambda: self.engines.kserve.service(namespace, service).revisions, lambda item: item.name)

    def requests(self) -> Collection[Request]:
        """Return the requests of the log, in its order, each named by its x-request-id."""
        return Collection("request", lambda: requests.read(self.engines.log()), lambda item: item.id)

    def runs(self, project: str) -> Collection[Run]:
        """Return the runs of a project, newest first, each named PIPELINE@ID by its train job; `get` takes an ID alone too."""
        runs = Runs(self.engines, project)
        return Collection("run", runs.every, lambda run: run.name, runs.one)

    def cause(self, run: Run) -> Cause | None:
        """Return why a run is red; None where it is not."""
        return Causes(self.engines, Runs(self.engines, run.project)).of(run)

    def versions_named(self, identifier: str) -> Iterable[Version]:
        """Give the versions of all models that were trained on a commit, or that have a name."""
        for model in self.engines.determined.models():
            for version in self.engines.determined.versions(model.name):
                data = version.provenance.data
                if identifier in (data.commit if data else None, version.name):
                    yield version


def _number(name: str, what: str) -> int:
    if not name.isdecimal():
        raise NotFound(f"there is no {what} {name!r}; {what}s have numbers")
    return int(name)
