"""The InferenceService of a deployment."""

from __future__ import annotations

from typing import Any

from pdk.deploy.arguments import Job


def spec_for(job: Job, uri: str) -> dict[str, Any]:
    """The spec of the InferenceService: one predictor that serves the archive at `uri`."""
    model: dict[str, Any] = {"modelFormat": {"name": "mar"}, "storageUri": uri}
    resources = {key: dict(value) for key, value in (("requests", job.requests), ("limits", job.limits)) if value}
    if resources:
        model["resources"] = resources
    predictor: dict[str, Any] = {"minReplicas": 1, "model": model}
    if job.service_account:
        predictor["serviceAccountName"] = job.service_account
    if job.tolerations:
        predictor["tolerations"] = [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} for key, value in job.tolerations.items()
        ]
    return {"predictor": predictor}
