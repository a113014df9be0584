"""What calls of the engines answer with: one frozen dataclass for each noun, in the engines' own words.

Times are in UTC, sizes in bytes; a time is None where it has not come. `pdk.catalog` hands these on as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pdk.provenance import Provenance

ENDED = ("SUCCESS", "FAILURE", "KILLED", "UNRUNNABLE")


# Pachyderm


@dataclass(frozen=True)
class Project:
    """A project holds repos and pipelines."""

    name: str
    created: datetime | None
    description: str


@dataclass(frozen=True)
class Repo:
    """A repo; its size is an upper bound where it comes from a list. Branches are named where one repo was asked for."""

    project: str
    name: str
    created: datetime | None
    size: int
    description: str
    branches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Branch:
    """A branch points to its newest commit.

    Attributes:
        head: ID of that commit.
        sources: the branches that its commits are computed from, as REPO@BRANCH.
        trigger: the branch of the same repo that it follows; empty where it follows none.
    """

    project: str
    repo: str
    name: str
    head: str | None
    sources: tuple[str, ...] = ()
    trigger: str = ""


@dataclass(frozen=True)
class Commit:
    """A commit of a repo.

    Attributes:
        origin: ``user``, or ``auto`` where the engine made it for a pipeline or another branch.
        error: why it holds less than it should; empty where all is well.
        size: of its files; an upper bound until it is finished.
    """

    project: str
    repo: str
    branch: str
    id: str
    parent: str | None
    origin: str
    description: str
    error: str
    size: int | None
    started: datetime | None
    finished: datetime | None


@dataclass(frozen=True)
class DataCommit:
    """A finished commit; `content` is the hash of everything in it, the same for the same files."""

    project: str
    repo: str
    id: str
    content: str
    parent: str | None = None


@dataclass(frozen=True)
class File:
    """A file, or a folder (``kind`` is ``file`` or ``dir``), of a commit; `hash` is the engine's, in hex."""

    path: str
    kind: str
    size: int
    hash: str
    committed: datetime | None = None


@dataclass(frozen=True)
class Difference:
    """A file that is not the same in two commits: ``added``, ``changed`` or ``deleted``; with its sizes in both."""

    change: str
    path: str
    old_size: int | None
    new_size: int | None


@dataclass(frozen=True)
class Pipeline:
    """A pipeline.

    Attributes:
        state: as the engine names it, without PIPELINE_, in small letters.
        last_job: state of its newest job, without JOB_, in small letters.
        spec: the effective spec; None where the engine does not say.
    """

    project: str
    name: str
    version: int
    state: str
    last_job: str
    reason: str
    spec: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """A job of a pipeline; state and reason are the engine's words. Its ID is that of the commit that it was made for."""

    project: str
    pipeline: str
    id: str
    state: str
    reason: str
    created: datetime | None
    started: datetime | None
    finished: datetime | None
    pipeline_version: int = 0
    datums: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what it is asked for by: PIPELINE@ID."""
        return f"{self.pipeline}@{self.id}"

    @property
    def ended(self) -> bool:
        """Return whether nothing more will happen."""
        return self.state in ENDED


@dataclass(frozen=True)
class Datum:
    """A datum of a job: its input files as REPO:PATH."""

    id: str
    job: str
    state: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class LogLine:
    """A line that a program printed, and when."""

    text: str
    time: datetime | None = None


# Determined


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        state: as the engine names it, without STATE_.
        progress: 0 to 1.
        config: only where one experiment was asked for.
    """

    id: int
    name: str
    state: str
    progress: float
    started: datetime | None
    ended: datetime | None
    labels: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Trial:
    """A trial of an experiment; `batches` that it has trained, and how often it was restarted."""

    id: int
    experiment: int
    state: str
    hparams: Mapping[str, Any]
    batches: int
    restarts: int
    started: datetime | None
    ended: datetime | None


@dataclass(frozen=True)
class Metrics:
    """What a trial reported after so many batches; `group` is ``training``, ``validation`` or a name of the code's own."""

    trial: int
    group: str
    batches: int
    values: Mapping[str, Any]
    time: datetime | None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with the validation metrics at it; trial and experiment are None where nobody knows them."""

    uuid: str
    experiment: int | None
    trial: int | None
    batches: int | None
    state: str
    metrics: Mapping[str, Any]
    reported: datetime | None


@dataclass(frozen=True)
class Model:
    """A model of the registry, with the number of its versions."""

    name: str
    description: str
    versions: int
    created: datetime | None


@dataclass(frozen=True)
class Version:
    """A registered model version; its name is the ID of the job that registered it."""

    number: int
    name: str
    checkpoint: str
    provenance: Provenance = field(default_factory=Provenance)
    model: str = ""
    created: datetime | None = None


# KServe

MODE = "serving.kserve.io/deploymentMode"  # annotation of an InferenceService: Standard or Knative


@dataclass(frozen=True)
class Revision:
    """A revision of a service, and the percent of the requests that it gets."""

    namespace: str
    service: str
    name: str
    percent: int
    newest: bool


@dataclass(frozen=True)
class Service:
    """An InferenceService.

    Attributes:
        phase: ``ready`` where the newest spec serves on all its replicas, ``failed`` where it will not, else ``progressing``.
        message: why it is not ready.
        version: name of the model version that it was last set to; empty where PDK did not set it.
        previous: name of the version that served before it; it goes on while the newest does not serve.
        digest: of what that version's archive is made from.
        storage: the URI that its model is read from.
        canary: percent of the requests that the newest version gets; None where it gets all.
        revisions: those that get requests; empty where the engine does not say.
    """

    namespace: str
    name: str
    phase: str
    url: str
    message: str
    version: str
    previous: str
    digest: str
    storage: str
    canary: int | None
    created: datetime | None
    revisions: tuple[Revision, ...] = ()


@dataclass(frozen=True)
class Request:
    """A request of the request log: which model version answered it, with what status, in how many milliseconds.

    Attributes:
        id: the x-request-id.
        bodies: what was sent and answered, where the service keeps that.
    """

    id: str
    time: str
    model: str
    version: str
    protocol: str
    code: int
    ms: float
    data_repo: str
    data_commit: str
    code_sha: str
    bodies: Mapping[str, Any] = field(default_factory=dict)
