"""Which revisions of an InferenceService serve, and which share of the requests each gets. Decisions only.

As KServe does it on Knative: a new predictor spec is a new revision. It gets requests once it answers; all of them, or
``canaryTrafficPercent`` of them, the rest staying with the revision that was rolled out last. In Standard deployments KServe has no
such share, and a new revision gets everything (kserve#4074).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdk.local.kserve.rules.kinds import Json

MODE = "serving.kserve.io/deploymentMode"
MODES = {"Standard": "Standard", "RawDeployment": "Standard", "Knative": "Knative", "Serverless": "Knative"}  # today's names and older ones
NOT_OF_A_REVISION = ("canaryTrafficPercent", "minReplicas", "maxReplicas", "scaleTarget", "scaleMetric")


@dataclass(frozen=True)
class Revision:
    """A predictor's spec, named by its content."""

    name: str
    predictor: Json

    @property
    def model(self) -> Json:
        """Return the model part of the predictor, in its new form."""
        if "model" in self.predictor:
            return dict(self.predictor["model"])
        return {"modelFormat": {"name": "pytorch"}, **self.predictor["pytorch"]}


@dataclass(frozen=True)
class Share:
    """A revision and how many of a hundred requests it gets."""

    revision: Revision
    percent: int


def annotation(isvc: Mapping[str, Any], name: str) -> str | None:
    """Return an annotation of an InferenceService."""
    found = (isvc["metadata"].get("annotations") or {}).get(name)
    return None if found is None else str(found)


def number_of(isvc: Mapping[str, Any], name: str) -> float:
    """Return an annotation that holds a number; 0 where it holds none."""
    try:
        return float(annotation(isvc, name) or 0)
    except ValueError:
        return 0.0


def mode_of(isvc: Mapping[str, Any]) -> str:
    """``Standard`` or ``Knative``."""
    return MODES.get(annotation(isvc, MODE) or "", "Standard")


def revision_of(isvc: Mapping[str, Any]) -> Revision:
    """Return the revision that an InferenceService asks for."""
    predictor = isvc["spec"]["predictor"]
    kept = {key: value for key, value in predictor.items() if key not in NOT_OF_A_REVISION}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]
    return Revision(f"{isvc['metadata']['name']}-predictor-{digest}", dict(predictor))


def percent_of(isvc: Mapping[str, Any]) -> int:
    """Return how many of a hundred requests the newest revision is to get."""
    given = isvc["spec"]["predictor"].get("canaryTrafficPercent")
    return 100 if given is None or mode_of(isvc) != "Knative" else int(given)


def wanted(isvc: Mapping[str, Any], stable: Revision | None) -> list[Share]:
    """Return the shares once the newest revision answers; `stable` was rolled out last."""
    latest, percent = revision_of(isvc), percent_of(isvc)
    if stable is None or stable.name == latest.name or percent == 100:
        return [Share(latest, 100)]
    return [Share(stable, 100 - percent), Share(latest, percent)]


def now(shares: list[Share], stable: Revision | None, *, answers: bool) -> list[Share]:
    """Return the shares at this moment: what was rolled out last keeps everything until the newest revision `answers`."""
    if answers:
        return [share for share in shares if share.percent > 0]
    return [Share(stable, 100)] if stable is not None else []
