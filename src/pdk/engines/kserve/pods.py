"""Pods of InferenceServices: what they print, why they do not run, and whether they are of the newest version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pdk.engines.kserve.connection import OF, Connection, mapped_errors
from pdk.errors import AuthError, NotFound, PdkError

HASH = "pod-template-hash"  # label: the revision of a Deployment that a pod is of
HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
RESTARTS = 1  # of a container that ended with an error: the second time is no accident
LINES = 20  # of a pod's log that a reason is looked for in
RUNTIME_CONTAINER = "kserve-container"


class Pods(Connection):
    """The calls about pods and the Deployments that make them."""

    def pod_logs(self) -> Iterator[str]:
        """Give the lines that the pods of all InferenceServices have printed, newest first of each."""
        with mapped_errors():
            listed = self._core.list_pod_for_all_namespaces(label_selector=OF).items
        for pod in listed:
            with contextlib.suppress(PdkError), mapped_errors():  # one that is only starting has none
                meta = pod.metadata
                yield from str(self._core.read_namespaced_pod_log(meta.name, meta.namespace, container=RUNTIME_CONTAINER)).splitlines()[
                    ::-1
                ]

    def problem(self, namespace: str, name: str) -> tuple[bool, str]:
        """Return what the pods of an InferenceService say of why they do not run, and whether waiting would not help."""
        try:
            with mapped_errors():
                listed = self._core.list_namespaced_pod(namespace, label_selector=f"{OF}={name}").items
        except PdkError:  # its owner may not look at pods: then the status has to do
            return False, ""
        newest = self._newest_hash(namespace, name)
        listed = [pod for pod in listed if not pod.metadata.deletion_timestamp and newest in ("", (pod.metadata.labels or {}).get(HASH))]
        found = [said for pod in sorted(listed, key=lambda pod: str(pod.metadata.name)) if (said := self._of_pod(pod))[1]]
        return max(found, default=(False, ""), key=lambda said: said[0])

    def _not_rolled_out(self, namespace: str = "", name: str = "") -> set[tuple[str, str]]:
        """Namespace and name of the services, or of the one, with pods that are not of the newest version, or not available.

        A service is Ready as long as those of the version before are.
        """
        selector = f"{OF}={name}" if name else OF
        try:
            with mapped_errors():
                if namespace:
                    found = self._apps.list_namespaced_deployment(namespace, label_selector=selector).items
                else:
                    found = self._apps.list_deployment_for_all_namespaces(label_selector=selector).items
        except (NotFound, AuthError):  # an API without Deployments, or one that hides them: its status speaks for the newest version
            return set()
        return {(one.metadata.namespace, one.metadata.labels[OF]) for one in found if not _complete(one)}

    def _newest_hash(self, namespace: str, name: str) -> str:
        """Return the label value that the pods of the newest revision have; empty where no Deployment made them."""
        try:
            with mapped_errors():
                found = self._apps.list_namespaced_replica_set(namespace, label_selector=f"{OF}={name}").items
        except PdkError:
            return ""
        number = "deployment.kubernetes.io/revision"
        newest = max(found, key=lambda one: int((one.metadata.annotations or {}).get(number, 0)), default=None)
        return str((newest.metadata.labels or {}).get(HASH, "")) if newest else ""

    def _of_pod(self, pod: Any) -> tuple[bool, str]:
        """Say of one pod why it does not run (image, initializer, crash with its last lines, place), and whether waiting would not help."""
        states = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
        died = ""
        for state in states:
            if state.state and state.state.running:  # what it died of may be over
                if not state.ready and (before := state.last_state.terminated if state.last_state else None) and before.exit_code:
                    died = self._died(pod, state.name, before, again=True)
                continue
            waiting = state.state.waiting if state.state else None
            ended = (state.state.terminated if state.state else None) or (state.last_state.terminated if state.last_state else None)
            if waiting and waiting.reason in HOPELESS:
                return True, f"pod {pod.metadata.name}, {state.name}: {waiting.reason}: {waiting.message or state.image}"
            if ended and ended.exit_code and (state.restart_count or 0) >= RESTARTS:
                return True, self._died(pod, state.name, ended, again=False)
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.status == "False":
                return False, f"pod {pod.metadata.name} has no node: {condition.message}"
        return False, died

    def _died(self, pod: Any, container: str, ended: Any, *, again: bool) -> str:
        """Return what a container died of; `again` where it runs once more, so that its log is that of its next run."""
        said = (ended.message or self._last_lines(pod, container, again=again)).strip()
        return f"pod {pod.metadata.name}, {container}: {ended.reason} with code {ended.exit_code}: {said}"

    def _last_lines(self, pod: Any, container: str, *, again: bool) -> str:
        """Return the end of the log of a container that ended: of its newest run that has one, or where it runs again the one before."""
        for previous in (True,) if again else (False, True):
            with contextlib.suppress(PdkError), mapped_errors():
                said = str(self._core.read_namespaced_pod_log(
                    pod.metadata.name, pod.metadata.namespace, container=container, previous=previous, tail_lines=LINES
                ))  # fmt: skip
                if said.strip() and not said.startswith("unable to retrieve container logs"):
                    return said
        return "its log is gone"


def _complete(deployment: Any) -> bool:
    """Return whether all pods of a Deployment are of its newest version and available."""
    status = deployment.status
    return bool(
        (status.observed_generation or 0) >= deployment.metadata.generation
        and (status.updated_replicas or 0) >= (deployment.spec.replicas or 0)
        and not status.unavailable_replicas
        and (status.replicas or 0) <= (status.updated_replicas or 0)
    )
