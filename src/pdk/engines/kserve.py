"""Kubernetes with KServe, as the flow sees it: InferenceServices as plain dicts."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from pdk.engines.patience import patiently
from pdk.errors import AuthError, Conflict, EngineError, NotFound, PdkError, TemporaryError, UserError
from pdk.timing import IMPORTS, WAITING, clock
from pdk.words import ARCHIVE_DIGEST, MODEL_VERSION, PREVIOUS_SERVED

GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
OF = "serving.kserve.io/inferenceservice"  # label: the InferenceService that a pod belongs to
MODE = "serving.kserve.io/deploymentMode"
CANARY = "canaryTrafficPercent"
ATTEMPTS = 5  # of an update that somebody else was faster than
POLL_S = 0.3
PATIENCE_S = 60.0  # how long the API may be away
HASH = "pod-template-hash"  # label: the revision of a Deployment that a pod is of
SURE_S = 3.0  # for which pods must look hopeless: right after an update they may still be those of the version before
HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
RESTARTS = 1  # of a container that ended with an error: the second time is no accident
LINES = 20
RUNTIME_CONTAINER = "kserve-container"
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
        kind = CODES.get(error.status, TemporaryError if error.status == 429 or error.status >= 500 else EngineError)
        raise kind(f"Kubernetes: {error.status} {error.reason}: {error.body or ''}"[:1000]) from error
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


def _remembered(body: Mapping[str, Any]) -> str:
    """What an InferenceService serves, to go back to."""
    notes = body["metadata"].get("annotations") or {}
    predictor = {key: value for key, value in body["spec"]["predictor"].items() if key != CANARY}
    return json.dumps(
        {"predictor": predictor, "digest": notes.get(ARCHIVE_DIGEST, ""), "version": notes.get(MODEL_VERSION, "")}, sort_keys=True
    )


def _isvc(namespace: str, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    """A new InferenceService."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations)},
        "spec": dict(spec),
    }


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
        with clock.during(IMPORTS):  # the client imports its 280 models when they are first named
            self._api, self._core, self._apps = client.CustomObjectsApi(), client.CoreV1Api(), client.AppsV1Api()

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

    def services(self) -> list[dict[str, Any]]:
        """All InferenceServices."""
        return list(self._patiently(self._api.list_cluster_custom_object, PLURAL)["items"])

    def runtimes(self) -> dict[str, tuple[str, ...]]:
        """The ClusterServingRuntimes, and the model formats of each."""
        with _errors():
            found = self._api.list_cluster_custom_object(GROUP, "v1alpha1", "clusterservingruntimes")["items"]
        return {
            body["metadata"]["name"]: tuple(str(entry.get("name")) for entry in body["spec"].get("supportedModelFormats") or [])
            for body in found
        }

    def try_out(self, namespace: str) -> None:
        """Have an InferenceService checked as if it were made; none is.

        Raises:
            PdkError: it would not be taken, with the reason.
        """
        body = _isvc(
            namespace, "pdk-doctor", {"predictor": {"model": {"modelFormat": {"name": "mar"}, "storageUri": "s3://pdk/doctor"}}}, {}
        )
        with _errors():
            self._api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, body, dry_run="All")

    def config_map(self, namespace: str, name: str) -> dict[str, str]:
        """What a config map holds.

        Raises:
            NotFound: there is none.
        """
        with _errors():
            return dict(self._core.read_namespaced_config_map(name, namespace).data or {})

    def account(self, namespace: str, name: str) -> dict[str, str]:
        """What a service account and its secrets are annotated with.

        Raises:
            NotFound: there is none, or a secret of it is missing.
        """
        with _errors():
            found = self._core.read_namespaced_service_account(name, namespace)
            notes = dict(found.metadata.annotations or {})
            for reference in found.secrets or []:
                notes.update(self._core.read_namespaced_secret(reference.name, namespace).metadata.annotations or {})
        return notes

    def pod_logs(self) -> Iterator[str]:
        """The lines that the pods of all InferenceServices have printed."""
        with _errors():
            listed = self._core.list_pod_for_all_namespaces(label_selector=OF).items
        for pod in listed:
            with contextlib.suppress(PdkError), _errors():  # one that is only starting has none
                meta = pod.metadata
                yield from str(self._core.read_namespaced_pod_log(meta.name, meta.namespace, container=RUNTIME_CONTAINER)).splitlines()

    def roll(
        self, namespace: str, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str], canary: int | None = None
    ) -> dict[str, Any]:
        """Create an InferenceService or bring it to `spec`; one that carries the same digest and spec is left alone.

        Args:
            canary: percent of the requests that the new version gets; the rest stays with the one that was rolled out last. The first
                version of a service gets all of them.

        Raises:
            UserError: the cluster refuses the spec, or the service's mode has no canaries.
        """
        wanted = copy.deepcopy(dict(spec))
        if canary is not None:
            wanted["predictor"][CANARY] = canary

        def edit(present: dict[str, Any]) -> bool:
            noted = present["metadata"].get("annotations") or {}
            if MODE in annotations and (mode := noted.get(MODE, annotations[MODE])) != annotations[MODE]:
                raise UserError(
                    f"InferenceService {namespace}/{name} is a {mode} deployment, which KServe does not change to {annotations[MODE]}; "
                    f"delete it first, or leave --deployment-mode at {mode}"
                )
            if present["spec"] == wanted and all(noted.get(key) == value for key, value in annotations.items()):
                return False
            changed = {**noted, **annotations}
            alone = present["spec"]["predictor"].get(CANARY) in (None, 100)
            if noted.get(ARCHIVE_DIGEST) != annotations.get(ARCHIVE_DIGEST) and alone and status_of(present).phase == "ready":
                changed[PREVIOUS_SERVED] = _remembered(present)  # what served; one that never did is nothing to go back to
            present["metadata"]["annotations"], present["spec"] = changed, wanted
            return True

        return self._edit(namespace, name, edit, otherwise=_isvc(namespace, name, spec, annotations))

    def _edit(
        self, namespace: str, name: str, edit: Callable[[dict[str, Any]], bool], otherwise: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Change an InferenceService, again where somebody else was faster; make it from `otherwise` where there is none.

        Args:
            edit: changes it in place; False leaves it alone.

        Raises:
            NotFound: there is none, and nothing to make it from.
        """
        for _ in range(ATTEMPTS):
            present = self.find(namespace, name)
            try:
                if present is None:
                    if otherwise is None:
                        raise NotFound(f"there is no InferenceService {namespace}/{name}")
                    return self._patiently(self._api.create_namespaced_custom_object, namespace, PLURAL, otherwise)
                if not edit(present):
                    return present
                return self._patiently(self._api.replace_namespaced_custom_object, namespace, PLURAL, name, present)
            except Conflict:
                continue
        raise TemporaryError(f"InferenceService {namespace}/{name} keeps being changed by somebody else")

    def promote(self, namespace: str, name: str) -> dict[str, Any]:
        """Give all requests to the version that has a share of them.

        Raises:
            UserError: no version has a share.
        """
        tried = False  # an update whose answer was lost is seen again as done

        def edit(present: dict[str, Any]) -> bool:
            nonlocal tried
            if present["spec"]["predictor"].pop(CANARY, None) is None and not tried:
                raise UserError(f"InferenceService {namespace}/{name} has no canary; its newest version has all requests already")
            tried = True
            return True

        return self._edit(namespace, name, edit)

    def roll_back(self, namespace: str, name: str) -> dict[str, Any]:
        """Go back to the version before: what served when the newest one came, by name and not by guess.

        Raises:
            UserError: none is known.
        """
        before: dict[str, Any] = {}  # decided once: an update whose answer was lost must not lead forward again

        def edit(present: dict[str, Any]) -> bool:
            notes = present["metadata"].setdefault("annotations", {})
            if before and present["spec"]["predictor"] == before["predictor"]:
                return False
            before.update(before or json.loads(notes.get(PREVIOUS_SERVED) or "{}"))
            if not before:
                raise UserError(f"InferenceService {namespace}/{name} has had no version before this one")
            notes[PREVIOUS_SERVED] = "" if CANARY in present["spec"]["predictor"] else _remembered(present)
            notes[ARCHIVE_DIGEST], notes[MODEL_VERSION] = before["digest"], before["version"]
            present["spec"]["predictor"] = before["predictor"]
            return True

        return self._edit(namespace, name, edit)

    def problem(self, namespace: str, name: str) -> tuple[bool, str]:
        """What the pods of an InferenceService say of why they do not run, and whether waiting would not help."""
        try:
            with _errors():
                listed = self._core.list_namespaced_pod(namespace, label_selector=f"{OF}={name}").items
        except PdkError:  # its owner may not look at pods: then the status has to do
            return False, ""
        newest = self._newest_hash(namespace, name)
        listed = [pod for pod in listed if not pod.metadata.deletion_timestamp and newest in ("", (pod.metadata.labels or {}).get(HASH))]
        found = [said for pod in sorted(listed, key=lambda pod: str(pod.metadata.name)) if (said := self._of_pod(pod))[1]]
        return max(found, default=(False, ""), key=lambda said: said[0])

    def _rolled_out(self, namespace: str, name: str) -> bool:
        """Whether all its pods are of the newest version and available: a service is Ready as long as those of the one before are."""
        try:
            with _errors():
                found = self._apps.list_namespaced_deployment(namespace, label_selector=f"{OF}={name}").items
        except NotFound:  # an API without Deployments: its status speaks for the newest version
            return True
        return all(
            (one.status.observed_generation or 0) >= one.metadata.generation
            and (one.status.updated_replicas or 0) >= (one.spec.replicas or 0)
            and not one.status.unavailable_replicas
            and (one.status.replicas or 0) <= (one.status.updated_replicas or 0)
            for one in found
        )

    def _newest_hash(self, namespace: str, name: str) -> str:
        """The label value that the pods of the newest revision have; empty where no Deployment made them."""
        try:
            with _errors():
                found = self._apps.list_namespaced_replica_set(namespace, label_selector=f"{OF}={name}").items
        except PdkError:
            return ""
        number = "deployment.kubernetes.io/revision"
        newest = max(found, key=lambda one: int((one.metadata.annotations or {}).get(number, 0)), default=None)
        return str((newest.metadata.labels or {}).get(HASH, "")) if newest else ""

    def _of_pod(self, pod: Any) -> tuple[bool, str]:
        """The same of one pod: its image, its storage initializer, its crash with its last lines, its place."""
        states = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
        for state in states:
            if state.state and state.state.running:
                continue  # whatever it died of is over
            waiting = state.state.waiting if state.state else None
            ended = (state.state.terminated if state.state else None) or (state.last_state.terminated if state.last_state else None)
            if waiting and waiting.reason in HOPELESS:
                return True, f"pod {pod.metadata.name}, {state.name}: {waiting.reason}: {waiting.message or state.image}"
            if ended and ended.exit_code and (state.restart_count or 0) >= RESTARTS:
                said = (ended.message or self._last_lines(pod, state.name)).strip()
                return True, f"pod {pod.metadata.name}, {state.name}: {ended.reason} with code {ended.exit_code}: {said}"
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.status == "False":
                return False, f"pod {pod.metadata.name} has no node: {condition.message}"
        return False, ""

    def _last_lines(self, pod: Any, container: str) -> str:
        """The end of the log of a container that ended: of its newest run that has one."""
        for previous in (False, True):
            with contextlib.suppress(PdkError), _errors():
                said = str(self._core.read_namespaced_pod_log(
                    pod.metadata.name, pod.metadata.namespace, container=container, previous=previous, tail_lines=LINES
                ))  # fmt: skip
                if said.strip() and not said.startswith("unable to retrieve container logs"):
                    return said
        return "its log is gone"

    def wait(self, namespace: str, name: str, timeout_s: float) -> Status:
        """Wait until the newest spec serves.

        Raises:
            EngineError: it failed, or did not within `timeout_s`; in the predictor's own words.
        """
        with clock.during(WAITING):
            return self._wait(namespace, name, timeout_s)

    def _wait(self, namespace: str, name: str, timeout_s: float) -> Status:
        deadline, since = time.monotonic() + timeout_s, None
        while True:
            body = self.find(namespace, name)
            if body is None:
                raise EngineError(f"InferenceService {namespace}/{name} was deleted while it was waited for")
            status = status_of(body)
            if status.phase == "ready" and self._rolled_out(namespace, name):
                return status
            if status.phase == "failed":
                raise EngineError(
                    f"InferenceService {namespace}/{name}: the new version does not serve, earlier ones go on: {status.message}"
                )
            hopeless, said = self.problem(namespace, name)
            since = (since or time.monotonic()) if hopeless else None
            if since is not None and time.monotonic() - since >= SURE_S:
                raise EngineError(f"InferenceService {namespace}/{name}: the new version does not serve, earlier ones go on: {said}")
            if time.monotonic() > deadline:
                raise EngineError(f"InferenceService {namespace}/{name} was not ready after {timeout_s:g} s: {said or status.message}")
            time.sleep(POLL_S)
