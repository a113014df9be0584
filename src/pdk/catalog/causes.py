"""A cause: from anything red upstream to the first thing that failed, what it said, what was different, and what to do next."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pdk.catalog.engines import Engines
from pdk.catalog.explain import explain
from pdk.catalog.runs import FAILED, JOB_STATES, Run, Runs
from pdk.engines.records import Experiment, Job
from pdk.errors import PdkError
from pdk.words import CODE_LABEL, label_of

BACK = 200  # earlier jobs of a pipeline that are looked at for one that went well
NAMED = 10  # files of a difference that are named
OF_A_RUN = frozenset(
    {"labels", "data.pachyderm", "searcher.source_checkpoint_uuid", "name"}
)  # keys of a config that differ in any two runs


@dataclass(frozen=True)
class Differences:
    """What is not the same in the first red run and the last green one.

    Attributes:
        files: how many data files were ``added``, ``changed``, ``deleted``.
        paths: some of them, each with + or ~ or - before it.
        code: SHA of the code before and now, where it is not the same.
        config: key of the experiment's config → its value before and now; None where a key is missing.
        pipeline: version of the pipeline's spec before and now, where it is not the same.
    """

    files: Mapping[str, int] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    code: tuple[str, str] | None = None
    config: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    pipeline: tuple[int, int] | None = None


@dataclass(frozen=True)
class Cause:
    """Why a run is red.

    Attributes:
        step: which of the run's steps it happened in, or the pipeline's name where it is none of them.
        job: the first job that failed, as PIPELINE@ID.
        reason: what it said, in one line.
        place: FILE:LINE in the user's own code; empty where there is none.
        ended: exit code or signal in words; empty where nobody says.
        lines: the end of what it printed.
        first_red: ID of the first run that failed with none green after it.
        last_green: ID of the run before that which had work to do and did it; empty where there never was one.
        serves: what serves meanwhile, as "NAMESPACE/NAME: version".
        next: the command to go on with.
    """

    step: str
    job: str
    reason: str
    place: str
    ended: str
    lines: tuple[str, ...]
    first_red: str
    last_green: str
    differences: Differences
    serves: tuple[str, ...]
    next: str


class Causes:
    """Finds causes.

    Args:
        engines: whom to ask.
        runs: of the project.
    """

    def __init__(self, engines: Engines, runs: Runs) -> None:
        self._engines, self._runs = engines, runs

    def of(self, run: Run) -> Cause | None:
        """Return why a run is red; None where it is not."""
        job = next((job for job in run.jobs if JOB_STATES.get(job.state) == FAILED), None)
        if job is None:
            return self._of_data(run)
        said = explain([*job.reason.splitlines(), *self._printed(run, job)])
        red, green = self._turn(job)
        step = next((step.name for step in run.steps if step.state == FAILED and step.job == job.name), job.pipeline)
        return Cause(
            step=step,
            job=job.name,
            reason=said.reason or job.reason.partition("\n")[0] or f"the job ended as {job.state.lower()}",
            place=said.place,
            ended=said.ended,
            lines=said.lines,
            first_red=red.id,
            last_green=green.id if green else "",
            differences=self._differences(green, red) if green else Differences(),
            serves=self._serves(run),
            next=self._next(run, job),
        )

    def _of_data(self, run: Run) -> Cause | None:
        """Return the cause of a commit that is broken itself."""
        if run.data is None or not run.data.error:
            return None
        target = f"{run.data.repo}@{run.data.id}"
        return Cause("commit", "", run.data.error, "", "", (), run.id, "", Differences(), self._serves(run), f"pdk inspect commit {target}")

    def _printed(self, run: Run, job: Job) -> Iterator[str]:
        """Give what a job printed, or where its engine keeps no logs, what its experiment did, or what its service's pods say."""
        try:
            lines = [line.text for line in self._engines.pachyderm.logs(job.project, job.pipeline, job.id)]
        except PdkError:  # an engine without a log store
            lines = []
        if lines:
            yield from lines
            return
        try:
            number = self._engines.determined.find_experiment(label_of(job.project, job.pipeline, job.id))
            if number is not None:
                yield from self._engines.determined.log_lines(number)
            elif job.pipeline != run.flow:
                for service in run.services:
                    yield from self._engines.kserve.problem(*service.split("/", 1))[1].splitlines()
        except PdkError:
            return

    def _turn(self, red: Job) -> tuple[Job, Job | None]:
        """Return the first job that failed with none green after it, and the green one before it."""
        first = red
        earlier = itertools.dropwhile(lambda job: job.id != red.id, self._engines.pachyderm.jobs(red.project, red.pipeline))
        for job in itertools.islice(earlier, 1, BACK):
            if job.state == "SUCCESS" and job.datums.get("processed"):  # one that skipped everything, after an update, shows nothing
                return first, job
            first = job if job.state == "FAILURE" else first  # not one that somebody killed, or an update of its pipeline
        return first, None

    def _differences(self, green: Job, red: Job) -> Differences:
        counts, paths = Counter[str](), list[str]()
        for repo in self._runs.flows.sources(red.pipeline):
            try:
                for one in self._engines.pachyderm.differences(red.project, f"{repo}@{red.id}", f"{repo}@{green.id}"):
                    counts[one.change] += 1
                    if len(paths) < NAMED:
                        paths.append({"added": "+", "changed": "~", "deleted": "-"}[one.change] + f" {repo}:{one.path}")
            except PdkError:  # a commit that is squashed, or a repo that is gone: then nothing is known of it
                continue
        before, now = self._experiment(green), self._experiment(red)
        shas = tuple(_code(experiment) for experiment in (before, now))
        versions = green.pipeline_version, red.pipeline_version
        return Differences(
            files=dict(counts),
            paths=tuple(paths),
            code=(shas[0], shas[1]) if all(shas) and shas[0] != shas[1] else None,
            config=differing(before.config or {}, now.config or {}) if before and now else {},
            pipeline=versions if versions[0] != versions[1] else None,
        )

    def _experiment(self, job: Job) -> Experiment | None:
        """Return the experiment that a job made; None where it made none, or its engine does not say."""
        try:
            number = self._engines.determined.find_experiment(label_of(job.project, job.pipeline, job.id))
            return self._engines.determined.experiment(number) if number is not None else None
        except PdkError:
            return None

    def _serves(self, run: Run) -> tuple[str, ...]:
        """Return what serves of the models that this flow makes."""
        try:
            services, own = self._engines.kserve.services(), set(self._versions(run))
        except PdkError:
            return ()
        serving = [(one, one.version if one.phase == "ready" else one.previous) for one in services]
        return tuple(f"{one.namespace}/{one.name}: version {version}" for one, version in serving if version in own)

    def _versions(self, run: Run) -> Iterator[str]:
        yield from (job.id for job in self._engines.pachyderm.jobs(run.project, run.flow))

    def _next(self, run: Run, job: Job) -> str:
        project = "" if run.project == "default" else f" --project {run.project}"
        return f"pdk logs {job.name}{project}"


def _code(experiment: Experiment | None) -> str:
    labels = experiment.labels if experiment else ()
    return next((label.removeprefix(CODE_LABEL) for label in labels if label.startswith(CODE_LABEL)), "")


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keys of two configs, spelled with dots, whose values are not the same, without those that differ in any two runs."""
    old, new = dict(_flat(before)), dict(_flat(now))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return {key: (old.get(key), new.get(key)) for key in keys if not any(key == own or key.startswith(f"{own}.") for own in OF_A_RUN)}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
