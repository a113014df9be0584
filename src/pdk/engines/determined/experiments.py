"""Experiments of a Determined, their trials, metrics, logs and checkpoints."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from determined.common.api import bindings
from determined.errors import MultipleDownloadsFailed, ProxiedDownloadFailed

from pdk.engines.determined.connection import Connection, moment, without_secrets
from pdk.engines.patience import WAIT_S
from pdk.engines.records import Checkpoint, Experiment, LogLine, Metrics, Trial
from pdk.errors import EngineError, NotFound, TemporaryError

STATES = {  # the engine's → ours; an unknown one raises
    **dict.fromkeys(("ACTIVE", "QUEUED", "PULLING", "STARTING", "RUNNING", "PAUSED"), "running"),
    **dict.fromkeys(("STOPPING_COMPLETED", "STOPPING_CANCELED", "STOPPING_ERROR", "STOPPING_KILLED"), "running"),
    "COMPLETED": "completed",
    **dict.fromkeys(("CANCELED", "ERROR", "DELETED", "DELETING", "DELETE_FAILED"), "failed"),
}


@dataclass(frozen=True)
class ExperimentStatus:
    """Where an experiment stands: phase (running, completed, failed), the engine's word for it, 0 to 1."""

    phase: str
    state: str
    progress: float


class Experiments(Connection):
    """The calls about experiments."""

    def ensure_project(self, workspace: str | None, project: str | None) -> None:
        """Create the workspace and project that a config names, where they are missing."""
        if not workspace:
            return

        def ensure() -> None:
            found = bindings.get_GetWorkspaces(self._session, nameCaseSensitive=workspace).workspaces
            id_ = found[0].id if found else self._sdk.create_workspace(workspace).id
            names = [entry.name for entry in bindings.get_GetWorkspaceProjects(self._session, id=id_).projects]
            if project and project not in names:
                body = bindings.v1PostProjectRequest(name=project, workspaceId=id_)
                bindings.post_PostProject(self._session, body=body, workspaceId=id_)

        self._call("workspace and project", ensure)

    def find_experiment(self, label: str) -> int | None:
        """Return the experiment that carries a label."""
        return self._call("experiments", lambda: self._labelled(label))

    def _labelled(self, label: str) -> int | None:
        found = bindings.get_GetExperiments(self._session, labels=[label]).experiments
        return max((entry.id for entry in found), default=None)

    def create_experiment(self, config: Mapping[str, Any], code: Path, label: str) -> int:
        """Start an experiment from a folder of code; returns its number.

        Args:
            label: among the config's labels and no other experiment's: what was made although no answer came is found by it.

        Raises:
            UserError: the config is wrong.
        """

        def create() -> int:
            return self._labelled(label) or int(self._sdk.create_experiment(config=dict(config), model_dir=str(code)).id)

        return self._call("create the experiment", create)

    def status(self, experiment: int) -> ExperimentStatus:
        """Return where an experiment stands.

        Raises:
            EngineError: a state that we do not know.
        """
        found = self._call(
            "experiment status", lambda: bindings.get_GetExperiment(self._session, experimentId=experiment), WAIT_S
        ).experiment
        state = str(found.state.name).removeprefix("STATE_")
        if state not in STATES:
            raise EngineError(f"experiment {experiment} is in state {state}, which this version of PDK does not know")
        return ExperimentStatus(STATES[state], state, float(found.progress or 0.0))

    def log_lines(self, experiment: int, skip: int = 0) -> list[str]:
        """Return the log of the experiment's trials from line `skip` on."""

        def read() -> list[str]:
            trials = bindings.get_GetExperimentTrials(self._session, experimentId=experiment).trials
            lines: list[str] = []
            for trial in trials:
                lines += [entry.message.rstrip("\n") for entry in bindings.get_TrialLogs(self._session, trialId=trial.id)]
            return lines[skip:]

        return self._call("experiment log", read, WAIT_S)

    def best_checkpoint(self, experiment: int) -> str:
        """UUID of the checkpoint that is best by the searcher's metric.

        Raises:
            NotFound: there is none.
        """
        sort, states = bindings.checkpointv1SortBy.SEARCHER_METRIC, [bindings.checkpointv1State.COMPLETED]

        def read() -> Any:
            return bindings.get_GetExperimentCheckpoints(self._session, id=experiment, limit=1, sortByAttr=sort, states=states)

        found = self._call("checkpoints", read).checkpoints
        if not found:
            raise NotFound(f"experiment {experiment} left no checkpoint; its code must report one")
        return str(found[0].uuid)

    def metrics(self, checkpoint: str) -> Mapping[str, Any]:
        """Return the validation metrics at a checkpoint."""
        found = self._call("checkpoint", lambda: bindings.get_GetCheckpoint(self._session, checkpointUuid=checkpoint))
        training = found.checkpoint.training
        return dict(training.validationMetrics.avgMetrics or {}) if training and training.validationMetrics else {}

    def download(self, checkpoint: str, target: Path) -> None:
        """Bring a checkpoint's files to `target`, without the credentials that its saved config may hold."""
        target.parent.mkdir(parents=True, exist_ok=True)

        def fetch() -> None:
            # the SDK takes a folder with a metadata.json for complete, so every try begins with an empty one
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
                place = Path(scratch) / "checkpoint"
                try:
                    self._sdk.get_checkpoint(checkpoint).download(path=str(place))
                except (MultipleDownloadsFailed, ProxiedDownloadFailed, tarfile.TarError, EOFError) as error:
                    raise TemporaryError(f"checkpoint {checkpoint} could not be downloaded: {error!r}") from error
                place.rename(target)

        self._call("download the checkpoint", fetch)
        saved = target / "load_data.json"
        if saved.exists():
            saved.write_text(json.dumps(without_secrets(json.loads(saved.read_text())), indent=1))

    def experiments(self, *, limit: int = 0, before: int = 0) -> list[Experiment]:
        """List experiments, newest first; at most `limit`, or all; those with smaller numbers than `before`."""

        def read() -> list[bindings.v1Experiment]:
            order, sort = bindings.v1OrderBy.DESC, bindings.v1GetExperimentsRequestSortBy.ID
            return list(
                bindings.get_GetExperiments(
                    self._session, limit=limit or None, orderBy=order, sortBy=sort,
                    experimentIdFilter_lt=before or None,
                ).experiments
            )  # fmt: skip

        return [_experiment(entry) for entry in self._call("experiments", read)]

    def experiment(self, number: int) -> Experiment:
        """Return one experiment with its config, in which keys and tokens are left out."""
        found = self._call("experiment", lambda: bindings.get_GetExperiment(self._session, experimentId=number))
        return replace(_experiment(found.experiment), config=without_secrets(dict(found.experiment.config)))

    def trials(self, experiment: int) -> list[Trial]:
        """List the trials of an experiment, oldest first."""
        found = self._call("trials", lambda: bindings.get_GetExperimentTrials(self._session, experimentId=experiment)).trials
        return sorted((_trial(entry) for entry in found), key=lambda trial: trial.id)

    def trial(self, number: int) -> Trial:
        """Return one trial."""
        return _trial(self._call("trial", lambda: bindings.get_GetTrial(self._session, trialId=number)).trial)

    def trial_metrics(self, trial: int, group: str) -> Iterator[Metrics]:
        """Give what a trial reported in a group, in the order of its batches."""

        def read() -> list[Metrics]:
            answers = bindings.get_GetMetrics(self._session, group=group, trialIds=[trial])
            return [_metrics(report) for answer in answers for report in answer.metrics]

        yield from self._call("metrics", read)

    def trial_log(self, trial: int, limit: int = 0) -> list[LogLine]:
        """List the last `limit` lines that a trial printed, or all, oldest first."""

        def read() -> list[LogLine]:
            order = bindings.v1OrderBy.DESC if limit else bindings.v1OrderBy.ASC
            found = bindings.get_TrialLogs(self._session, trialId=trial, limit=limit or None, orderBy=order)
            lines = [LogLine(entry.message.rstrip("\n"), moment(entry.timestamp)) for entry in found]
            return lines[::-1] if limit else lines

        return self._call("trial log", read)

    def checkpoints(self, experiment: int) -> list[Checkpoint]:
        """List the checkpoints of an experiment, newest first."""
        order, sort = bindings.v1OrderBy.DESC, bindings.checkpointv1SortBy.END_TIME

        def read() -> list[bindings.v1Checkpoint]:
            found = bindings.get_GetExperimentCheckpoints(self._session, id=experiment, orderBy=order, sortByAttr=sort)
            return list(found.checkpoints)

        return [_checkpoint(entry) for entry in self._call("checkpoints", read)]

    def checkpoint(self, uuid: str) -> Checkpoint:
        """Return one checkpoint."""
        found = self._call("checkpoint", lambda: bindings.get_GetCheckpoint(self._session, checkpointUuid=uuid))
        return _checkpoint(found.checkpoint)


def _experiment(entry: bindings.v1Experiment) -> Experiment:
    return Experiment(
        id=entry.id,
        name=entry.name,
        state=str(entry.state.name).removeprefix("STATE_"),
        progress=float(entry.progress or 0.0),
        started=moment(entry.startTime),
        ended=moment(entry.endTime),
        labels=tuple(entry.labels or ()),
    )


def _trial(entry: bindings.trialv1Trial) -> Trial:
    return Trial(
        id=entry.id,
        experiment=entry.experimentId,
        state=str(entry.state.name).removeprefix("STATE_"),
        hparams=dict(entry.hparams),
        batches=entry.totalBatchesProcessed,
        restarts=entry.restarts,
        started=moment(entry.startTime),
        ended=moment(entry.endTime),
    )


def _metrics(report: bindings.v1MetricsReport) -> Metrics:
    values = dict(report.metrics)
    values = dict(values.get("avg_metrics") or values.get("validation_metrics") or values)
    return Metrics(report.trialId, report.group, report.totalBatches, values, moment(report.endTime))


def _checkpoint(entry: bindings.v1Checkpoint) -> Checkpoint:
    training, batches = entry.training, (entry.metadata or {}).get("steps_completed")
    validation = training.validationMetrics if training else None
    return Checkpoint(
        uuid=entry.uuid,
        experiment=training.experimentId if training else None,
        trial=training.trialId if training else None,
        batches=int(batches) if batches is not None else None,
        state=str(entry.state.name).removeprefix("STATE_"),
        metrics=dict(validation.avgMetrics or {}) if validation else {},
        reported=moment(entry.reportTime),
    )
