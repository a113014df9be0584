"""The status that KServe's controller writes in Standard deployments, and the pod that stands for a predictor process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pdk.local.kserve.rules.kinds import Json
from pdk.local.kserve.rules.objects import now
from pdk.local.kserve.rules.rollout import Revision, Share, mode_of

OF = "serving.kserve.io/inferenceservice"  # label: the InferenceService that an object belongs to


def url_of(isvc: Json, domain: str) -> str:
    """Return where an InferenceService answers."""
    return f"http://{isvc['metadata']['name']}.{isvc['metadata']['namespace']}.{domain}"


def _status(isvc: Json, domain: str, state: str, model: Json, reason: str = "", message: str = "") -> Json:
    name, namespace, stamp = isvc["metadata"]["name"], isvc["metadata"]["namespace"], now()
    why = {key: value for key, value in (("reason", reason), ("message", message)) if value}
    conditions = [
        {"type": "IngressReady", "status": state, "lastTransitionTime": stamp},
        {"type": "PredictorReady", "status": state, "lastTransitionTime": stamp, **why},
        {"type": "Ready", "status": state, "lastTransitionTime": stamp, **why},
        {"type": "Stopped", "status": "False", "severity": "Info", "lastTransitionTime": stamp},
    ]
    return {
        "observedGeneration": isvc["metadata"]["generation"],
        "url": url_of(isvc, domain),
        "address": {"url": f"http://{name}-predictor.{namespace}.svc.cluster.local"},
        "conditions": conditions,
        "components": {"predictor": {"url": f"http://{name}-predictor.{namespace}.{domain}"}},
        "modelStatus": model,
        "deploymentMode": mode_of(isvc),
        "clusterServingRuntimeName": "pdk-mar",
    }


def ready(isvc: Json, domain: str, copies: int) -> Json:
    """The wanted revision serves, with so many replicas; with none it waits for a request."""
    model = {
        "copies": {"failedCopies": 0, "totalCopies": copies},
        "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
        "transitionStatus": "UpToDate",
    }
    return _status(isvc, domain, "True", model)


def progressing(isvc: Json, domain: str, *, serving: bool) -> Json:
    """A revision is being brought up; `serving` says whether an older one answers meanwhile."""
    active = "Loaded" if serving else ""
    model = {"states": {"activeModelState": active, "targetModelState": "Loading"}, "transitionStatus": "InProgress"}
    return _status(isvc, domain, "True" if serving else "Unknown", model)


def failed(isvc: Json, domain: str, revision: str, error: Any, *, serving: bool) -> Json:
    """A revision cannot serve; `error` is a LoadFailed."""
    failure = {
        "location": "local", "reason": error.reason, "message": str(error), "modelRevisionName": revision, "time": now(),
        "exitCode": error.code,
    }  # fmt: skip
    model = {
        "copies": {"failedCopies": 1},
        "states": {"activeModelState": "Loaded" if serving else "", "targetModelState": "FailedToLoad"},
        "transitionStatus": "BlockedByFailedLoad",
        "lastFailureInfo": failure,
    }
    return _status(isvc, domain, "True" if serving else "False", model, *(() if serving else (error.reason, str(error))))


def add_revisions(
    content: Json, latest: str, stable: Revision | None, previous: Revision | None, routed: Sequence[Share], *, ready: bool
) -> None:
    """What KServe says beside that in Knative deployments: revisions, and which share of the requests each gets.

    Args:
        content: a status, to which it is added.
        latest: the name of the newest revision; `ready` says whether it has answered.
    """
    component = content["components"]["predictor"]
    component["latestCreatedRevision"] = latest
    named = {"latestReadyRevision": latest if ready else "", "latestRolledoutRevision": stable.name if stable else "",
             "previousRolledoutRevision": previous.name if previous else ""}  # fmt: skip
    component.update({key: value for key, value in named.items() if value})
    component["traffic"] = [
        {"latestRevision": share.revision.name == latest, "percent": share.percent, "revisionName": share.revision.name,
         **({} if share.revision.name == latest else {"tag": "prev"})}
        for share in reversed(routed)
    ]  # fmt: skip
    state = {entry["type"]: entry for entry in content["conditions"]}
    for kind in ("LatestDeploymentReady", "PredictorConfigurationReady", "PredictorRouteReady", "RoutesReady"):
        content["conditions"].append({**state["PredictorReady"], "type": kind})
    content["conditions"].sort(key=lambda entry: str(entry["type"]))


def keep_times(old: Json, new: Json) -> Json:
    """Carry over the times of what did not change."""
    before = {condition["type"]: condition for condition in old.get("conditions") or []}
    for condition in new["conditions"]:
        last = before.get(condition["type"])
        if last and last["status"] == condition["status"]:
            condition["lastTransitionTime"] = last["lastTransitionTime"]
    failure, earlier = new["modelStatus"].get("lastFailureInfo"), (old.get("modelStatus") or {}).get("lastFailureInfo")
    if failure and earlier and {**failure, "time": ""} == {**earlier, "time": ""}:
        failure["time"] = earlier["time"]
    return new


def pod(isvc: Json, pod_name: str, phase: str, *, ready: bool, reason: str, restarts: int) -> Json:
    """Return a pod for `kubectl get pods` and `kubectl logs`."""
    name = isvc["metadata"]["name"]
    state = {"running": {"startedAt": now()}} if phase == "Running" else {"waiting": {"reason": reason or "ContainerCreating"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod_name, "labels": {OF: name, "component": "predictor"}},
        "spec": {"containers": [{"name": "kserve-container", "image": "pdk/serve"}]},
        "status": {
            "phase": phase,
            **({"reason": reason} if reason else {}),
            "containerStatuses": [
                {"name": "kserve-container", "ready": ready, "restartCount": restarts, "image": "pdk/serve", "imageID": "", "state": state}
            ],
        },
    }
