"""The JSON of the Determined API, as `determined.common.api.bindings` reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pdk.kit.db import Connection
from pdk.local.determined.rules import checkpoints, config, experiments, metrics, registry, searchers, summaries, workspaces

Json = dict[str, Any]
VERSION = "0.38.1"
USER: Json = {"id": 1, "username": "determined", "admin": True, "active": True}


def stamp(seconds: float) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Messages:
    """Renders records, reading what they refer to from `db`."""

    def __init__(self, db: Connection) -> None:
        self.db = db

    def experiment(self, found: experiments.Experiment) -> Json:
        """``v1Experiment``."""
        entries = experiments.trials(self.db, found.id)
        project = workspaces.project(self.db, found.project)
        workspace = workspaces.workspace(self.db, project.workspace)
        message: Json = {
            "id": found.id,
            "name": found.name,
            "description": found.description,
            "labels": found.labels,
            "notes": found.notes,
            "state": f"STATE_{found.state}",
            "archived": found.archived,
            "config": config.redact(found.config.content),
            "originalConfig": config.redact_text(found.original),
            "jobId": found.job_id,
            "numTrials": len(entries),
            "trialIds": [entry.id for entry in entries],
            "projectId": found.project,
            "projectName": project.name,
            "workspaceId": workspace.id,
            "workspaceName": workspace.name,
            "projectOwnerId": 1,
            "searcherType": found.config.searcher.name,
            "startTime": stamp(found.started),
            "username": USER["username"],
            "userId": USER["id"],
            "progress": found.progress,
            "resourcePool": "default",
            "checkpointCount": len(checkpoints.listing(self.db, experiment=found.id)),
        }
        if found.ended is not None:
            message["endTime"] = stamp(found.ended)
            message["duration"] = max(0, int(found.ended - found.started))
        if found.parent is not None:
            message["forkedFrom"] = found.parent
        return message

    def trial(self, found: experiments.Trial) -> Json:
        """``trialv1Trial``."""
        message: Json = {
            "id": found.id,
            "experimentId": found.experiment,
            "state": f"STATE_{found.state}",
            "hparams": found.hparams,
            "restarts": found.restarts,
            "startTime": stamp(found.started),
            "totalBatchesProcessed": metrics.steps(self.db, found.id),
            "taskId": found.task,
            "taskIds": [found.task],
            "checkpointCount": len(checkpoints.listing(self.db, trial=found.id)),
            "summaryMetrics": summaries.summary(self.db, found.id),
        }
        if found.ended is not None:
            message["endTime"] = stamp(found.ended)
        latest, best = metrics.validations(self.db, found)
        if latest:
            message["latestValidation"] = self.metrics(latest)
        if best:
            message["bestValidation"] = self.metrics(best)
            checkpoint = checkpoints.at_steps(self.db, found.id, best.steps)
            if checkpoint:
                message["bestCheckpoint"] = self.checkpoint_workload(checkpoint)
        return message

    def metrics(self, report: metrics.Report, *, batches: bool = False) -> Json:
        """``v1MetricsWorkload``."""
        values: Json = {"avgMetrics": report.values}
        if batches and report.batches:
            values["batchMetrics"] = report.batches
        return {"metrics": values, "numInputs": 0, "totalBatches": report.steps, "endTime": stamp(report.reported)}

    def workloads(self, found: experiments.Trial, *, batches: bool) -> list[Json]:
        """Metrics and checkpoints of a trial by time."""
        made = [
            (report.reported, {report.group: self.metrics(report, batches=batches)})
            for report in metrics.of_trial(self.db, found.id)
            if report.group in ("training", "validation")
        ]
        for checkpoint in checkpoints.listing(self.db, trial=found.id):
            made.append((checkpoint.reported, {"checkpoint": self.checkpoint_workload(checkpoint)}))
        return [entry for _, entry in sorted(made, key=lambda pair: pair[0])]

    def checkpoint_workload(self, found: checkpoints.Checkpoint) -> Json:
        """``v1CheckpointWorkload``."""
        return {
            "state": found.state, "totalBatches": found.steps, "uuid": found.uuid, "endTime": stamp(found.reported),
            "metadata": found.metadata, "resources": found.resources,
        }  # fmt: skip

    def checkpoint(self, found: checkpoints.Checkpoint) -> Json:
        """``v1Checkpoint``."""
        trial = experiments.trial(self.db, found.trial)
        experiment = experiments.get(self.db, trial.experiment)
        validation = checkpoints.validation_of(self.db, found)
        shown = config.redact(experiment.config.content)
        for key in ("access_key", "secret_key"):  # clients that read the bucket themselves then use their own, or ask the master
            shown["checkpoint_storage"].pop(key, None)
        training: Json = {
            "experimentConfig": shown,
            "experimentId": experiment.id,
            "trialId": trial.id,
            "hparams": trial.hparams,
            "validationMetrics": {"avgMetrics": validation or {}},
        }
        value = searchers.number_of(validation or {}, experiment.config.searcher.metric)
        if value is not None:
            training["searcherMetric"] = value
        return {
            "uuid": found.uuid,
            "state": found.state,
            "taskId": trial.task,
            "allocationId": found.allocation,
            "metadata": found.metadata,
            "resources": found.resources,
            "reportTime": stamp(found.reported),
            "training": training,
        }

    def model(self, found: registry.Model) -> Json:
        """``v1Model``."""
        count = registry.count_versions(self.db, found.id)
        return {
            "id": found.id, "name": found.name, "description": found.description, "notes": found.notes,
            "labels": found.labels, "metadata": found.metadata, "archived": found.archived,
            "creationTime": stamp(found.created), "lastUpdatedTime": stamp(found.updated), "numVersions": count,
            "userId": USER["id"], "username": USER["username"], "workspaceId": found.workspace,
        }  # fmt: skip

    def version(self, found: registry.Version) -> Json:
        """``v1ModelVersion``."""
        owner = registry.model_by_id(self.db, found.model)
        return {
            "id": found.id, "version": found.number, "model": self.model(owner),
            "checkpoint": self.checkpoint(checkpoints.get(self.db, found.checkpoint)),
            "name": found.name, "comment": found.comment, "notes": found.notes, "labels": found.labels,
            "metadata": found.metadata, "creationTime": stamp(found.created), "lastUpdatedTime": stamp(found.updated),
            "userId": USER["id"], "username": USER["username"],
        }  # fmt: skip

    def workspace(self, found: workspaces.Workspace) -> Json:
        """``v1Workspace``."""
        inside = workspaces.projects(self.db, found.id)
        return {
            "id": found.id, "name": found.name, "archived": found.archived, "errorMessage": "",
            "immutable": found.id == workspaces.FIRST, "numProjects": len(inside),
            "numExperiments": sum(workspaces.count(self.db, project.id) for project in inside),
            "pinned": True, "state": "WORKSPACE_STATE_UNSPECIFIED", "userId": USER["id"], "username": USER["username"],
        }  # fmt: skip

    def project(self, found: workspaces.Project) -> Json:
        """``v1Project``."""
        count, owner = workspaces.count(self.db, found.id), workspaces.workspace(self.db, found.workspace)
        return {
            "id": found.id, "name": found.name, "key": found.name[:5].upper(), "description": found.description,
            "workspaceId": found.workspace, "workspaceName": owner.name, "archived": found.archived or owner.archived,
            "errorMessage": "", "immutable": found.id == workspaces.FIRST, "notes": [], "numExperiments": count,
            "numActiveExperiments": workspaces.count(self.db, found.id, active=True), "numRuns": count,
            "state": "WORKSPACE_STATE_UNSPECIFIED", "userId": USER["id"], "username": USER["username"],
        }  # fmt: skip
