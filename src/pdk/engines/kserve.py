"""Kubernetes with KServe, as the flow sees it: InferenceServices as plain dicts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from pdk.engines.patience import patiently
from pdk.errors import AuthError, Conflict, EngineError, NotFound, PdkError, TemporaryError, UserError

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
DIGEST = "pdk/archive-digest"
ATTEMPTS = 5  # of an update that somebody else was faster than
POLL_S = 0.3
PATIENCE_S = 60.0  # how long the API may be away
CODES: dict[int, type[PdkError]] = {400: UserError, 401: AuthError, 403: AuthError, 404: NotFound, 409: Conflict, 422: UserError}


@dataclass(frozen=True)
class Status:
    """Where an InferenceService stands: phase (ready, progressing, failed), its URL, and why."""

    phase: str
    url: str
    message: str


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Vendor errors stop here."""
    try:
        yield
    except client.ApiException as error:
        raise CODES.get(error.status, EngineError)(f"Kubernetes: {error.status} {error.reason}: {error.body or ''}"[:1000]) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TemporaryError(f"Kubernetes does not answer ({error}); is it running, and is the kubeconfig right?") from error


def status_of(body: Mapping[str, Any]) -> Status:
    """Read an InferenceService's status: ready only for its newest spec."""
    status = body.get("status") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    model = status.get("modelStatus") or {}
    current = int(status.get("observedGeneration") or 0) >= int(body["metadata"].get("generation") or 0)
    failure = model.get("lastFailureInfo") or {}
    url = str(status.get("url") or "")
    if current and model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        return Status("failed", url, str(failure.get("message") or ready.get("message") or "the model could not be loaded"))
    if current and ready.get("status") == "True" and model.get("transitionStatus") == "UpToDate":
        return Status("ready", url, "")
    return Status("progressing", url, str(ready.get("message") or model.get("transitionStatus") or "waiting"))


class KServe:
    """InferenceServices of one cluster.

    Args:
        kubeconfig: file; without it the pod's own service account, or the user's kubeconfig.
    """

    def __init__(self, kubeconfig: Path | None = None) -> None:
        try:
            if kubeconfig is not None:
                config.load_kube_config(str(kubeconfig))
            else:
                config.load_config()
        except (config.ConfigException, OSError) as error:
            raise UserError(f"no way to the Kubernetes API: {error}; give --k8s-config-file or set KUBECONFIG") from error
        self._api = client.CustomObjectsApi()

    def _patiently(self, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """A call of the API, repeated while nobody answers: an API server may be just starting again.

        Every call here names its object and its version, so that repeating one that had arrived does no harm.
        """

        def once() -> dict[str, Any]:
            with _errors():
                return dict(call(GROUP, VERSION, *arguments))

        return patiently("Kubernetes", once, PATIENCE_S)

    def find(self, namespace: str, name: str) -> dict[str, Any] | None:
        """An InferenceService."""
        try:
            return self._patiently(self._api.get_namespaced_custom_object, namespace, PLURAL, name)
        except NotFound:
            return None

    def roll(self, namespace: str, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
        """Create an InferenceService or bring it to `spec`; one that carries the same digest and spec is left alone.

        Raises:
            UserError: the cluster refuses the spec.
        """
        for _ in range(ATTEMPTS):
            present = self.find(namespace, name)
            try:
                if present is None:
                    body = {
                        "apiVersion": f"{GROUP}/{VERSION}",
                        "kind": "InferenceService",
                        "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations)},
                        "spec": dict(spec),
                    }
                    return self._patiently(self._api.create_namespaced_custom_object, namespace, PLURAL, body)
                noted = present["metadata"].get("annotations") or {}
                if noted.get(DIGEST) == annotations.get(DIGEST) and present["spec"] == spec:
                    return present
                present["metadata"]["annotations"] = {**noted, **annotations}
                present["spec"] = dict(spec)
                return self._patiently(self._api.replace_namespaced_custom_object, namespace, PLURAL, name, present)
            except Conflict:
                continue
        raise TemporaryError(f"InferenceService {namespace}/{name} keeps being changed by somebody else")

    def wait(self, namespace: str, name: str, timeout_s: float) -> Status:
        """Wait until the newest spec serves.

        Raises:
            EngineError: it failed, or did not within `timeout_s`; in the predictor's own words.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            body = self.find(namespace, name)
            if body is None:
                raise EngineError(f"InferenceService {namespace}/{name} was deleted while it was waited for")
            status = status_of(body)
            if status.phase == "ready":
                return status
            if status.phase == "failed":
                raise EngineError(
                    f"InferenceService {namespace}/{name}: the new version does not serve, earlier ones go on: {status.message}"
                )
            if time.monotonic() > deadline:
                raise EngineError(f"InferenceService {namespace}/{name} was not ready after {timeout_s:g} s: {status.message}")
            time.sleep(POLL_S)
