"""InferenceServices: where they stand, their versions forth and back. Those that are changed are plain dicts, as the API has them."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pdk.engines.kserve.connection import GROUP, PLURAL, VERSION, mapped_errors
from pdk.engines.kserve.pods import Pods
from pdk.engines.records import MODE, Revision, Service
from pdk.errors import Conflict, EngineError, NotFound, TemporaryError, UserError
from pdk.timing import WAITING, clock
from pdk.words import ARCHIVE_DIGEST, MODEL_VERSION, PREVIOUS_SERVED

CANARY = "canaryTrafficPercent"
ATTEMPTS = 5  # of an update that somebody else was faster than
POLL_S = 0.3  # between two looks at a service that is waited for
SURE_S = 3.0  # for which pods must look hopeless: right after an update they may still be those of the version before


@dataclass(frozen=True)
class ServiceStatus:
    """Where an InferenceService stands: phase (ready, progressing, failed), its URL, and why."""

    phase: str
    url: str
    message: str


def status_of(body: Mapping[str, Any]) -> ServiceStatus:
    """Read an InferenceService's status: ready only for its newest spec."""
    status = body.get("status") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    ready = conditions.get("Ready", {})
    model = status.get("modelStatus") or {}
    current = int(status.get("observedGeneration") or 0) >= int(body["metadata"].get("generation") or 0)
    failure = model.get("lastFailureInfo") or {}
    url = str(status.get("url") or "")
    if current and model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        return ServiceStatus("failed", url, str(failure.get("message") or ready.get("message") or "the model could not be loaded"))
    if current and ready.get("status") == "True" and model.get("transitionStatus") == "UpToDate":
        return ServiceStatus("ready", url, "")
    return ServiceStatus("progressing", url, str(ready.get("message") or model.get("transitionStatus") or "waiting"))


def service_of(body: Mapping[str, Any], late: Collection[tuple[str, str]] = ()) -> Service:
    """Read an InferenceService.

    Args:
        late: namespace and name of those with pods that are not of the newest version: they are not ready yet.
    """
    meta, status, predictor = body["metadata"], status_of(body), body["spec"].get("predictor") or {}
    namespace, name, notes = meta["namespace"], meta["name"], meta.get("annotations") or {}
    if status.phase == "ready" and (namespace, name) in late:
        status = ServiceStatus("progressing", status.url, "replicas of the version before are being replaced")
    component = ((body.get("status") or {}).get("components") or {}).get("predictor") or {}
    shares = [(str(entry["revisionName"]), int(entry.get("percent") or 0)) for entry in component.get("traffic") or []]
    newest, created = component.get("latestCreatedRevision") or (shares[-1][0] if shares else ""), meta.get("creationTimestamp")
    return Service(
        namespace=namespace,
        name=name,
        phase=status.phase,
        url=status.url,
        message=status.message,
        version=notes.get(MODEL_VERSION, ""),
        previous=_previous(notes),
        digest=notes.get(ARCHIVE_DIGEST, ""),
        storage=str((predictor.get("model") or {}).get("storageUri") or ""),
        canary=predictor.get(CANARY),
        created=datetime.fromisoformat(created) if created else None,
        revisions=tuple(Revision(namespace, name, revision, percent, revision == newest) for revision, percent in shares),
    )


def _previous(notes: Mapping[str, str]) -> str:
    """Return the version that is remembered to go back to; anybody may have written the annotation."""
    try:
        content = json.loads(notes.get(PREVIOUS_SERVED) or "{}")
    except ValueError:
        return ""
    return str(content.get("version") or "") if isinstance(content, dict) else ""


def _remembered(body: Mapping[str, Any]) -> str:
    """Return what an InferenceService serves, to go back to."""
    notes = body["metadata"].get("annotations") or {}
    predictor = {key: value for key, value in body["spec"]["predictor"].items() if key != CANARY}
    return json.dumps(
        {"predictor": predictor, "digest": notes.get(ARCHIVE_DIGEST, ""), "version": notes.get(MODEL_VERSION, "")}, sort_keys=True
    )


def _isvc(namespace: str, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return a new InferenceService."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations)},
        "spec": dict(spec),
    }


class Services(Pods):
    """The calls about InferenceServices."""

    def find(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an InferenceService."""
        try:
            return self._patiently(self._api.get_namespaced_custom_object, namespace, PLURAL, name)
        except NotFound:
            return None

    def services(self, namespace: str = "") -> list[Service]:
        """List the InferenceServices of a namespace, or of all, by name."""
        if namespace:
            found = self._patiently(self._api.list_namespaced_custom_object, namespace, PLURAL)["items"]
        else:
            found = self._patiently(self._api.list_cluster_custom_object, PLURAL)["items"]
        late = self._not_rolled_out(namespace)
        return sorted((service_of(body, late) for body in found), key=lambda service: (service.namespace, service.name))

    def service(self, namespace: str, name: str) -> Service:
        """Return one InferenceService.

        Raises:
            NotFound: there is none of that name.
        """
        body = self.find(namespace, name)
        if body is None:
            raise NotFound(f"there is no InferenceService {namespace}/{name}")
        return service_of(body, self._not_rolled_out(namespace, name))

    def try_out(self, namespace: str) -> None:
        """Have an InferenceService checked as if it were made; none is.

        Raises:
            PdkError: it would not be taken, with the reason.
        """
        body = _isvc(
            namespace, "pdk-doctor", {"predictor": {"model": {"modelFormat": {"name": "mar"}, "storageUri": "s3://pdk/doctor"}}}, {}
        )
        with mapped_errors():
            self._api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, body, dry_run="All")

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

    def wait(self, namespace: str, name: str, timeout_s: float) -> ServiceStatus:
        """Wait until the newest spec serves.

        Raises:
            EngineError: it failed, or did not within `timeout_s`; in the predictor's own words.
        """
        with clock.during(WAITING):
            return self._wait(namespace, name, timeout_s)

    def _wait(self, namespace: str, name: str, timeout_s: float) -> ServiceStatus:
        deadline, since = time.monotonic() + timeout_s, None
        while True:
            body = self.find(namespace, name)
            if body is None:
                raise EngineError(f"InferenceService {namespace}/{name} was deleted while it was waited for")
            status = status_of(body)
            if status.phase == "ready" and not self._not_rolled_out(namespace, name):
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
