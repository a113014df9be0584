"""One run of the train step. What must survive it lives in the engines and is looked up before it is made."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pdk.engines.determined import Determined
from pdk.engines.pachyderm import Pachyderm
from pdk.engines.patience import patiently
from pdk.engines.records import DataCommit, Version
from pdk.errors import PdkError, UserError
from pdk.flow.train import experiment as experiments
from pdk.flow.train.arguments import TrainJob
from pdk.flow.train.checkout import Checkout, checkout
from pdk.provenance import numbers_of
from pdk.timing import WAITING, clock

POLL_S = 0.5  # between two looks at the experiment
FAILURE_LINES = 25  # of a trial's log that a failed job ends with
PROGRESS_STEP = 10  # percent


def say(text: str) -> None:
    """To the job's log."""
    print(text, flush=True)


def run(job: TrainJob) -> None:
    """Train (or find what was trained already), register, leave checkpoint and model-info.yaml in /pfs/out.

    Raises:
        PdkError: with what the user needs to know.
    """
    with tempfile.TemporaryDirectory(prefix="pdk-train-") as scratch:
        code = checkout(job.git_url, job.git_ref, job.sub_dir, Path(scratch), job.git_roots, job.credentials)
        say(f"code: {code.url} at {code.sha}")
        config = experiments.read_config(code, job.config)
        digest = experiments.config_hash(config)
        pachyderm = Pachyderm(job.engines.pachd_host, job.engines.pachd_port, job.engines.pachd_token)
        data = patiently("data commit", lambda: pachyderm.data_commit(job.project, job.repo, job.commit))
        say(f"data: commit {data.id} of {data.project}/{data.repo}, content {data.content[:16]}")
        determined = Determined(job.engines.master, job.engines.user, job.engines.password)
        versions = determined.versions(job.model)
        version = next((known for known in versions if known.name == job.job_id), None)
        if version is not None:
            say(f"version {job.job_id} is registered already")
        elif same := experiments.same_training(versions, job, data, code, digest):
            say(f"the same data, code and config were trained already as version {same.name}: its checkpoint is registered again")
            origin = replace(same.provenance, data=experiments.data_of(data), job=experiments.job_of(job), reused=same.name)
            version = determined.register(job.model, job.job_id, same.checkpoint, origin, f"reuses version {same.name}")
        else:
            version = _train(job, code, config, digest, data, determined, pachyderm, versions)
        experiments.check_own(version, job)
        say(f"model {job.model}: version {version.number}, named {version.name}")
    determined.download(version.checkpoint, job.out / "checkpoint")
    experiments.write_info(job.out, job, version)
    say("the checkpoint and model-info.yaml are in /pfs/out")


def _train(
    job: TrainJob,
    code: Checkout,
    config: dict[str, Any],
    digest: str,
    data: DataCommit,
    determined: Determined,
    pachyderm: Pachyderm,
    versions: list[Version],
) -> Version:
    """Run the experiment of this job and register its best checkpoint."""
    parent = None
    if job.incremental:
        parent, why = patiently("earlier commits", lambda: experiments.choose_parent(versions, data, pachyderm))
        say(why)
    number = determined.find_experiment(job.key)
    if number is None:
        determined.ensure_project(config.get("workspace"), config.get("project"))
        token = patiently("token", lambda: pachyderm.reader_token(job.project, job.repo, f"pdk-{job.pipeline}-{job.job_id}"))
        number = determined.create_experiment(experiments.complete(config, job, data, code, parent, token), code.folder, job.key)
        say(f"experiment {number} was created")
    else:
        say(f"experiment {number} was created for this job already; waiting for it")
    _follow(determined, number)
    checkpoint = determined.best_checkpoint(number)
    metrics = determined.checkpoint(checkpoint).metrics
    say(f"experiment {number} completed; best checkpoint {checkpoint}: " + ", ".join(f"{k} {v}" for k, v in sorted(metrics.items())))
    determined.ensure_model(job.model, f"trained by pipeline {job.pipeline} on {job.project}/{job.repo}")
    origin = replace(experiments.provenance(job, data, code, digest, number, parent), metrics=numbers_of(metrics))
    return determined.register(job.model, job.job_id, checkpoint, origin, f"data commit {data.id}, experiment {number}")


def _follow(determined: Determined, number: int) -> None:
    """Show the experiment's log as it grows until it has ended.

    Raises:
        UserError: it did not complete; with the last lines of its log.
    """
    shown, said = 0, 0
    while True:
        status, began = determined.status(number), time.monotonic()
        lines = determined.log_lines(number, shown)
        took = time.monotonic() - began
        for line in lines:
            say(f"[experiment {number}] {line}")
        shown += len(lines)
        if (percent := int(status.progress * 100)) >= said + PROGRESS_STEP:
            said = percent
            say(f"experiment {number}: {percent} % done")
        if status.phase == "completed":
            return
        if status.phase == "failed":
            last = "\n".join(determined.log_lines(number)[-FAILURE_LINES:])
            raise UserError(f"experiment {number} ended as {status.state}; the last lines of its log:\n{last}")
        with clock.during(WAITING):
            time.sleep(max(POLL_S, 10 * took))  # a long log takes long to read: not more than a tenth of the time goes there


def main() -> int:
    """The container's entry point: 0, or 1 with one clear message."""
    from pdk.flow.train.arguments import parse

    clock.begin()
    try:
        run(parse())
    except PdkError as error:
        say(f"train: {error}")
        return 1
    say(clock.report())
    return 0
