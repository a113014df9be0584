"""What the API server, KServe's webhooks, and this server for its own limits, refuse of an InferenceService, in their words.

Source of the fields: KServe 0.20's v1beta1 PredictorSpec (its frameworks, ComponentExtensionSpec, and the PodSpec within).
"""

from __future__ import annotations

import re

from pdk.local.kserve.rules import shapes
from pdk.local.kserve.rules.kinds import ISVC, ApiError, Json, bad_request, invalid

NAME_RULE = "[a-z]([-a-z0-9]*[a-z0-9])?"
SERVED = ("model", "pytorch")  # frameworks that run here
FRAMEWORKS = ("sklearn", "xgboost", "tensorflow", "triton", "onnx", "huggingface", "pmml", "lightgbm", "paddle", *SERVED)
INTEGERS = ("minReplicas", "maxReplicas", "scaleTarget", "containerConcurrency", "canaryTrafficPercent", "timeout")
EXTENSION = (*INTEGERS, "scaleMetric", "scaleMetricType", "autoScaling", "logger", "batcher", "labels", "annotations", "deploymentStrategy",
             "workerSpec")  # fmt: skip
POD = (
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy", "enableServiceLinks",
    "ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers", "hostname", "imagePullSecrets",
    "initContainers", "nodeName", "nodeSelector", "os", "overhead", "preemptionPolicy", "priority", "priorityClassName",
    "readinessGates", "resourceClaims", "resources", "restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates",
    "securityContext", "serviceAccount", "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
)  # fmt: skip
KNOWN = {"spec": ("predictor", "transformer", "explainer"), "spec.predictor": (*FRAMEWORKS, *EXTENSION, *POD)}
VALIDATOR, DEFAULTER = (f'admission webhook "inferenceservice.kserve-webhook-server.{name}" denied the request: ' for name in
                        ("validator", "defaulter"))  # fmt: skip


def denied(message: str) -> ApiError:
    """Return what the validating webhook refuses."""
    return ApiError(403, "Forbidden", VALIDATOR + message)


def check_isvc(body: Json, *, strict: bool) -> None:
    """Check an InferenceService, and take out of it what nobody knows.

    Args:
        strict: refuse unknown fields, as kubectl asks for.

    Raises:
        ApiError: 400, 403 or 422.
    """
    name, spec = body["metadata"]["name"], body.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("predictor"), dict):
        raise invalid(ISVC, name, "spec.predictor", "Required value", "FieldValueRequired")
    for path, part in (("spec", spec), ("spec.predictor", spec["predictor"])):
        for key in [key for key, value in part.items() if value is None]:
            del part[key]  # as good as not said
        _check_fields(path, part, strict=strict)
    for key in ("transformer", "explainer"):
        if key in spec:
            raise bad_request(f"spec.{key} is not supported locally; run this InferenceService on a cluster")
    _check_numbers(spec["predictor"])
    if not re.fullmatch(NAME_RULE, name) or len(name) > 63:
        rule = (
            "a InferenceService name must consist of lower case alphanumeric characters or '-', and must start with alphabetical character."
        )
        example = f'(e.g. "my-name" or "abc-123", regex used for validation is \'{NAME_RULE}\')'
        raise denied(f'the InferenceService "{name}" is invalid: {rule} {example}')
    shapes.check_predictor(name, spec["predictor"])
    if not any(spec["predictor"].get(key) for key in SERVED):
        raise bad_request(f"spec.predictor must hold {' or '.join(SERVED)} with a storageUri; other predictors are not supported locally")


def _check_fields(path: str, part: Json, *, strict: bool) -> None:
    unknown = [key for key in part if key not in KNOWN[path]]
    if unknown and strict:
        what = ", ".join(f'unknown field "{path}.{key}"' for key in sorted(unknown))
        raise bad_request(f'InferenceService in version "v1beta1" cannot be handled as a InferenceService: strict decoding error: {what}')
    for key in unknown:
        del part[key]


def _check_numbers(predictor: Json) -> None:
    for key in INTEGERS:
        value = predictor.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            kind = (
                "string"
                if isinstance(value, str)
                else "bool"
                if isinstance(value, bool)
                else "number"
                if isinstance(value, float)
                else "object"
            )
            field = f"PredictorSpec.spec.predictor.ComponentExtensionSpec.{key}"
            size = "int64" if key in ("containerConcurrency", "canaryTrafficPercent", "timeout") else "int32"
            raise ApiError(400, "", f"{DEFAULTER}json: cannot unmarshal {kind} into Go struct field {field} of type {size}")
    least, most = predictor.get("minReplicas") or 0, predictor.get("maxReplicas") or 0
    if least < 0:
        raise denied("'MinReplicas' cannot be less than 0")
    if most < 0:
        raise denied("'MaxReplicas' cannot be less than 0")
    if most and least > most:
        raise denied("'MinReplicas' cannot be greater than MaxReplicas")
    if not 0 <= (predictor.get("canaryTrafficPercent") or 0) <= 100:
        raise denied("canaryTrafficPercent must be between 0 and 100")
