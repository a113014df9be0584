"""The InferenceService of a deployment."""

from __future__ import annotations

from typing import Any

from pdk.engines.records import MODE
from pdk.flow.deploy.arguments import DeployJob
from pdk.words import ARCHIVE_DIGEST, KEEP_PREVIOUS_S, MODEL_VERSION, REQUEST_LOG_SAMPLE


def spec_for(job: DeployJob, uri: str) -> dict[str, Any]:
    """Return the spec of the InferenceService: one predictor that serves the archive at `uri`."""
    model: dict[str, Any] = {"modelFormat": {"name": "mar"}, "storageUri": uri}
    resources = {key: dict(value) for key, value in (("requests", job.requests), ("limits", job.limits)) if value}
    if resources:
        model["resources"] = resources
    predictor: dict[str, Any] = {"minReplicas": job.min_replicas, "model": model}
    if job.max_replicas is not None:
        predictor["maxReplicas"] = job.max_replicas
    if job.request_timeout_s is not None:
        predictor["timeout"] = job.request_timeout_s
    if job.node_selector:
        predictor["nodeSelector"] = dict(job.node_selector)
    if job.service_account:
        predictor["serviceAccountName"] = job.service_account
    if job.tolerations:
        predictor["tolerations"] = [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} for key, value in job.tolerations.items()
        ]
    return {"predictor": predictor}


def annotations_for(job: DeployJob, digest: str, version: str) -> dict[str, str]:
    """Return the annotations of the InferenceService: what is served, and how."""
    return {
        ARCHIVE_DIGEST: digest,
        MODEL_VERSION: version,
        MODE: job.mode,
        KEEP_PREVIOUS_S: str(job.keep_previous_s),  # always said, so that what an earlier run asked for ends
        REQUEST_LOG_SAMPLE: f"{job.log_sample:g}",
    }
