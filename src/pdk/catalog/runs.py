"""A run: one commit's way from data to what serves it, joined by IDs that the engines have already.

The ID of a commit is that of every job that it causes, and the name of the model version that is registered; the experiment carries the
job as a label, the InferenceService names the version in an annotation, and the request log in every line. Nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from pdk.catalog import requests
from pdk.catalog.engines import Engines
from pdk.catalog.flows import Flows
from pdk.documents import read_yaml
from pdk.engines.records import Commit, Job, Service
from pdk.errors import NotFound, PdkError, UserError
from pdk.provenance import Provenance
from pdk.words import DEPLOY_INFO, MODEL_INFO, label_of

OK, RUNNING, WAITING, FAILED = "ok", "running", "waiting", "failed"
JOB_STATES = {
    **dict.fromkeys(("CREATED", "STARTING"), WAITING),
    **dict.fromkeys(("RUNNING", "EGRESSING", "FINISHING"), RUNNING),
    "SUCCESS": OK,
    **dict.fromkeys(("FAILURE", "KILLED"), FAILED),
    "UNRUNNABLE": WAITING,  # for a job upstream that failed
}


@dataclass(frozen=True)
class Step:
    """One of a run's five steps.

    Attributes:
        name: ``commit``, ``train``, ``archive``, ``serve`` or ``predict``.
        state: ``ok``, ``running``, ``waiting`` or ``failed``.
        what: what it made, does or waits for, in a few words.
        job: the job that does it, as PIPELINE@ID; empty where none does.
    """

    name: str
    state: str
    what: str
    started: datetime | None = None
    finished: datetime | None = None
    job: str = ""

    @property
    def seconds(self) -> float | None:
        """Return how long it took; None while it is not known."""
        return (self.finished - self.started).total_seconds() if self.started and self.finished else None


@dataclass(frozen=True)
class Run:
    """One commit's way to its prediction.

    Attributes:
        id: of the commit, of every job, and the name of the model version.
        flow: the pipeline that trains.
        state: ``failed`` where something on the way failed, ``running`` while something works or waits for its turn, else ``ok``.
        data: the commit that set it off; None where it is gone.
        jobs: those on the way, each after what feeds it.
        experiment: number of the Determined experiment; None where none was needed or made.
        services: NAMESPACE/NAME of those that were set to its version.
    """

    project: str
    flow: str
    id: str
    state: str
    steps: tuple[Step, ...]
    data: Commit | None
    jobs: tuple[Job, ...]
    experiment: int | None
    model: str
    services: tuple[str, ...]
    started: datetime | None
    finished: datetime | None

    @property
    def name(self) -> str:
        """Return what it is asked for by: its train job."""
        return f"{self.flow}@{self.id}"


class Runs:
    """The runs of a project, as the engines have them now. What all runs share is asked for once.

    Args:
        engines: whom to ask.
        project: of Pachyderm.
    """

    def __init__(self, engines: Engines, project: str) -> None:
        self._engines, self.project = engines, project

    @cached_property
    def flows(self) -> Flows:
        """Return the project's pipelines as a graph."""
        return Flows.of(self._engines.pachyderm.pipelines(self.project))

    @cached_property
    def _services(self) -> list[Service]:
        return self._engines.kserve.services()

    @cached_property
    def _answered(self) -> Mapping[tuple[str, str], int]:
        return requests.counted(self._engines.log())

    def every(self) -> Iterator[Run]:
        """Give all runs, newest first."""
        trains = set(self.flows.trains())
        for job in self._engines.pachyderm.jobs(self.project):
            if job.pipeline in trains and has_data(job):
                yield self._run(job.pipeline, job.id, self._jobs(job.id))

    def one(self, name: str) -> Run:
        """Return the run that PIPELINE@ID, or an ID, names.

        Raises:
            NotFound: there is none.
            UserError: an ID has several, for several pipelines train on its commit.
        """
        flow, separator, id_ = name.rpartition("@")
        jobs = self._jobs(id_)
        found = [train for train in self.flows.trains() if train in jobs and (not separator or train == flow)]
        if not found:
            raise NotFound(f"there is no run {name!r} in project {self.project}; `pdk list run` shows those that there are")
        if len(found) > 1:
            raise UserError(f"{len(found)} pipelines train on commit {id_}; name one of them: {', '.join(f'{of}@{id_}' for of in found)}")
        return self._run(found[0], id_, jobs)

    def _jobs(self, id_: str) -> dict[str, Job]:
        return {job.pipeline: job for job in self._engines.pachyderm.job_set(id_) if job.project == self.project}

    def _run(self, flow: str, id_: str, by_name: Mapping[str, Job]) -> Run:
        deploys = self.flows.deploys(flow)
        way = list(dict.fromkeys(name for end in (flow, *deploys) for name in self.flows.upstream(end)))
        jobs = tuple(by_name[name] for name in way if name in by_name)
        data = self._data(flow, id_)
        trained = self._info(flow, id_, MODEL_INFO)
        experiment = self._experiment(flow, id_, trained)
        model = str(trained.get("name") or "")
        services = tuple(one for one in self._services if id_ == one.version)
        train = _train(by_name.get(flow), experiment, model, jobs)
        deploy = next((by_name[name] for name in deploys if name in by_name), None)
        deployed = self._info(deploy.pipeline, id_, DEPLOY_INFO) if deploy else {}
        archive, serve = _deploy(deploy, deployed, services, train, has_pipeline=bool(deploys))
        steps = (_commit(data), train, archive, serve, self._predict(model, id_, serve))
        failed = any(step.state == FAILED for step in steps) or any(JOB_STATES.get(job.state) == FAILED for job in jobs)
        busy = any(not job.ended for job in jobs) or any(step.state == RUNNING for step in steps)
        started = data.started if data else min((job.created for job in jobs if job.created), default=None)
        finished = None if busy else max((job.finished for job in jobs if job.finished), default=None)
        return Run(
            self.project, flow, id_, FAILED if failed else RUNNING if busy else OK, steps, data, jobs, experiment, model,
            tuple(f"{one.namespace}/{one.name}" for one in services), started, finished,
        )  # fmt: skip

    def _data(self, flow: str, id_: str) -> Commit | None:
        """Find the commit that set it off: by a user, in one of the repos that the flow's data comes from."""
        found = []
        for repo in self.flows.sources(flow):
            try:
                found.append(self._engines.pachyderm.commit(self.project, f"{repo}@{id_}"))
            except NotFound:
                continue
        return next((commit for commit in found if commit.origin == "user"), next(iter(found), None))

    def _info(self, pipeline: str, id_: str, name: str) -> dict[str, Any]:
        """Read what a step leaves in its output; it may have been written by anybody."""
        try:
            raw = self._engines.pachyderm.read(self.project, pipeline, id_, f"/{name}")
            content = read_yaml(raw or b"")
        except PdkError:  # its output is not there yet, or is no YAML
            return {}
        return content if isinstance(content, dict) else {}

    def _experiment(self, flow: str, id_: str, trained: Mapping[str, Any]) -> int | None:
        if trained:
            return Provenance.from_json(trained.get("provenance")).experiment
        return self._engines.determined.find_experiment(label_of(self.project, flow, id_))

    def _predict(self, model: str, version: str, serve: Step) -> Step:
        count = self._answered.get((model, version), 0)
        if count:
            return Step("predict", OK, f"{count} requests in the log")
        return Step("predict", WAITING, "no request by now" if serve.state == OK else "until it serves")


def has_data(job: Job) -> bool:
    """Say whether a job has, or may still have, something to do: a pipeline's first one has not while its repo is empty."""
    return not job.ended or job.state != "SUCCESS" or bool(job.datums.get("total"))


def _commit(data: Commit | None) -> Step:
    if data is None:
        return Step("commit", WAITING, "the commit is gone from the repo")
    what = f"{data.repo}@{data.branch or data.id}" + (f": {data.description}" if data.description else "")
    state = FAILED if data.error else OK if data.finished else RUNNING
    return Step("commit", state, data.error or what, data.started, data.finished)


def _train(job: Job | None, experiment: int | None, model: str, jobs: Iterable[Job]) -> Step:
    if job is None:
        return Step("train", WAITING, "for its job")
    name = job.name
    if job.state == "UNRUNNABLE":
        return Step("train", WAITING, _waits_for(job, jobs), job=name)
    state = JOB_STATES.get(job.state, RUNNING)
    what = f"experiment {experiment}" if experiment is not None else ""
    if state == OK and model:
        what = f"model {model}" + (f", {what}" if what else "")
    return Step("train", state, what or job.reason.partition("\n")[0] or name, job.started, job.finished, name)


def _waits_for(job: Job, jobs: Iterable[Job]) -> str:
    failed = next((other.pipeline for other in jobs if JOB_STATES.get(other.state) == FAILED and other != job), "")
    return f"for {failed}, which failed" if failed else job.reason.partition("\n")[0]


def _deploy(
    job: Job | None, info: Mapping[str, Any], services: tuple[Service, ...], train: Step, *, has_pipeline: bool
) -> tuple[Step, Step]:
    """Return the steps archive and serve: one job does both, and only where it ended well does it say when what was done."""
    if not has_pipeline:
        return Step("archive", WAITING, "no pipeline deploys it"), Step("serve", WAITING, "no pipeline deploys it")
    if job is None or job.state in ("UNRUNNABLE", "CREATED", "STARTING"):
        what = "for train, which failed" if train.state == FAILED else f"for {train.name}" if train.state != OK else "for its job"
        return Step("archive", WAITING, what), Step("serve", WAITING, what)
    name, state = job.name, JOB_STATES.get(job.state, RUNNING)
    archived = _moment(info.get("archived"))
    if info or services:  # a service names the version once its archive is in the store
        archive = Step("archive", OK, str(info.get("uri") or (services[0].storage if services else "")), job.started, archived, name)
        what = str(info.get("url") or (services[0].url if services else ""))
        failure = job.reason.partition("\n")[0] or "the new version does not serve"
        return archive, Step("serve", state, what if state == OK else failure if state == FAILED else what or "rolling out",
                             archived, job.finished, name)  # fmt: skip
    archive = Step("archive", state, job.reason.partition("\n")[0] or name, job.started, job.finished, name)
    if state == OK:
        return archive, Step("serve", OK, "it was replaced, or its job's output is gone", job.finished, job.finished, name)
    return archive, Step("serve", WAITING, "for archive, which failed" if state == FAILED else "for archive")


def _moment(value: object) -> datetime | None:
    """Read a time that a step wrote: YAML gives it as one, or as text."""
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
