"""The experiment of a run: its config, what it goes on from, and whether it has to run at all."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdk.documents import Unreadable, read_yaml, write_yaml
from pdk.engines.records import DataCommit, Version
from pdk.errors import EngineError, PdkError, TemporaryError, UserError
from pdk.flow.train.arguments import TrainJob
from pdk.flow.train.checkout import Checkout
from pdk.provenance import Code, ConfigFile, Data, JobRef, ParentVersion, Provenance
from pdk.words import CODE_LABEL, MODEL_INFO

if TYPE_CHECKING:
    from pdk.engines.pachyderm import Pachyderm

INJECTED = ("host", "port", "project", "repo", "branch", "previous_commit", "token")


@dataclass(frozen=True)
class Parent:
    """The version that an incremental run goes on from: its checkpoint and data commit."""

    version: Version
    commit: str


def read_config(code: Checkout, name: str) -> dict[str, Any]:
    """Return the experiment's config as it stands in the repository.

    Raises:
        UserError: it is missing, no YAML, or lacks what is filled in at run time.
    """
    path = (code.folder / name).resolve()
    if not path.is_relative_to(code.folder) or not path.is_file():
        raise UserError(f"there is no config {name!r} in {code.folder.name} of {code.url} at {code.sha[:12]}")
    try:
        config = read_yaml(path.read_bytes())
    except Unreadable as error:
        raise UserError(f"the config {name!r} cannot be read: {error}") from error
    section = ((config or {}).get("data") or {}).get("pachyderm") if isinstance(config, dict) else None
    if not isinstance(section, dict):
        raise UserError(f"the config {name!r} lacks the mapping data.pachyderm, into which the address of the data is written; add it")
    return dict(config)


def config_hash(config: dict[str, Any]) -> str:
    """Names a config without what is filled in at run time."""
    bare = copy.deepcopy(config)
    for key in INJECTED:
        bare["data"]["pachyderm"].pop(key, None)
    bare.pop("labels", None)
    return hashlib.sha256(json.dumps(bare, sort_keys=True, default=str).encode()).hexdigest()


def complete(config: dict[str, Any], job: TrainJob, data: DataCommit, code: Checkout, parent: Parent | None, token: str) -> dict[str, Any]:
    """Make the config of this run: where its data is, what it is found by, what it goes on from."""
    made = copy.deepcopy(config)
    made["data"]["pachyderm"].update(
        host=job.engines.pachd_host, port=str(job.engines.pachd_port), project=data.project, repo=data.repo, branch=data.id, token=token,
        previous_commit=parent.commit if parent else "",
    )  # fmt: skip
    made["labels"] = [*(config.get("labels") or []), job.repo, job.job_id, job.pipeline, job.key, f"{CODE_LABEL}{code.sha}"]
    if parent:
        made.setdefault("searcher", {})["source_checkpoint_uuid"] = parent.version.checkpoint
    return made


def provenance(job: TrainJob, data: DataCommit, code: Checkout, config: str, experiment: int, parent: Parent | None) -> Provenance:
    """Make what a model version says of its origin."""
    return Provenance(
        data=data_of(data),
        code=Code(code.url, code.sha, job.sub_dir),
        config=ConfigFile(job.config, config),
        experiment=experiment,
        job=job_of(job),
        mode=mode_of(job),
        parent=ParentVersion(parent.version.name, parent.commit) if parent else None,
    )


def data_of(data: DataCommit) -> Data:
    """Make what a model version says of its data commit."""
    return Data(data.project, data.repo, data.id, data.content)


def job_of(job: TrainJob) -> JobRef:
    """Make what a model version says of the job that registered it."""
    return JobRef(job.project, job.pipeline, job.job_id)


def mode_of(job: TrainJob) -> str:
    """Return how a job trains, in a word."""
    return "incremental" if job.incremental else "full"


def check_own(version: Version, job: TrainJob) -> None:
    """Look whether a version with this job's name was registered by this job: all pipelines on one commit share the job's ID.

    Raises:
        UserError: another pipeline was first.
    """
    known = version.provenance.job
    if known != job_of(job):
        other = f"by pipeline {known.project}/{known.pipeline}" if known else "by somebody else"
        raise UserError(
            f"model {job.model!r} has a version named {version.name} already, registered {other}; versions are named by the job, whose ID "
            "all pipelines on one commit share, so this model is not registered; give this pipeline another --model"
        )


def same_training(versions: Sequence[Version], job: TrainJob, data: DataCommit, code: Checkout, config: str) -> Version | None:
    """Find a version that was trained on the same data, code and config in the same mode: nothing would come out differently.

    Args:
        config: hash of the config.
    """
    for version in versions:
        known = version.provenance
        if (
            known.data is not None
            and known.data.content == data.content
            and known.code == Code(code.url, code.sha, job.sub_dir)
            and known.config is not None
            and known.config.hash == config
            and known.mode == mode_of(job)
        ):
            return version
    return None


def choose_parent(versions: Sequence[Version], data: DataCommit, pachyderm: Pachyderm) -> tuple[Parent | None, str]:
    """Return the newest version whose data commit is an ancestor of this one and differs by new files only; and why, in words."""
    by_commit: dict[str, Version] = {}
    for candidate in versions:  # newest first
        known = candidate.provenance.data
        if known is not None and (known.project, known.repo) == (data.project, data.repo):
            by_commit.setdefault(known.commit, candidate)
    for ancestor in pachyderm.ancestors(data):
        version = by_commit.get(ancestor)
        if version is None:
            continue
        try:
            differing = Counter(
                one.change for one in pachyderm.differences(data.project, f"{data.repo}@{data.id}", f"{data.repo}@{ancestor}")
            )
        except (TemporaryError, EngineError):
            raise  # to be tried again: an engine that is away is no reason to train on everything
        except PdkError as error:
            return None, f"the difference to commit {ancestor} cannot be read ({error}): training on everything"
        if differing["deleted"] or differing["changed"]:
            what = f"{differing['changed']} files changed and {differing['deleted']} were deleted"
            return None, f"{what} since version {version.name} (commit {ancestor}): training on everything"
        if not differing["added"]:
            return None, f"no file is new since version {version.name} (commit {ancestor}): training on everything"
        return Parent(
            version, ancestor
        ), f"going on from version {version.name} on the {differing['added']} files added since commit {ancestor}"
    return None, "no earlier version was trained on an ancestor of this commit: training on everything"


def write_info(out: Path, job: TrainJob, version: Version) -> None:
    """``model-info.yaml`` for the deploy step."""
    content = {
        "name": job.model,
        "version": job.job_id,
        "pipeline": job.pipeline,
        "repo": job.repo,
        "project": job.project,
        "checkpoint": version.checkpoint,
        "provenance": version.provenance.to_json(),
    }
    (out / MODEL_INFO).write_text(write_yaml(content))
