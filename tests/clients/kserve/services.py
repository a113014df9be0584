"""InferenceServices for tests: models that answer a number, applied as users do it."""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from kubernetes import client, config

from conftest import wait_until
from pdk.engines.pachyderm import Pachyderm
from pdk.mar import Manifest, write

HANDLER = """
import threading

def predict(instances):
    if "wait" in instances:
        threading.Event().wait(1.0)
    return [{answer}] * len(instances)
"""
GROUP = ("serving.kserve.io", "v1beta1")


@dataclass
class Services:
    """One InferenceService of a test, and the models that it serves."""

    up: object
    name: str
    folder: Path
    uris: dict = field(default_factory=dict)

    def __post_init__(self):
        config.load_kube_config(str(self.up.installation.kubeconfig))
        self.api, self.core = client.CustomObjectsApi(), client.CoreV1Api()
        self.engine = Pachyderm("127.0.0.1", self.up.installation.ports.pachyderm)
        self.engine.ensure_repo("default", self.name, "")

    def model(self, answer, handler=HANDLER):
        """The storageUri of a model that answers `answer`, as version ``v<answer>``."""
        if (answer, handler) not in self.uris:
            archive = self.folder / "m.mar"
            origin = json.dumps({"version": f"v{answer}"}).encode()
            files = {"handler.py": handler.replace("{answer}", str(answer)).encode(), "provenance.json": origin}
            write(archive, Manifest("m", str(answer), "handler.py"), files)
            commit = self.engine.write("default", self.name, "master", "m", {"model-store/m.mar": archive.read_bytes()})
            self.uris[answer, handler] = f"s3://{commit}.master.{self.name}.default/m"
        return self.uris[answer, handler]

    def apply(self, uri, *, mode="Knative", notes=None, **predictor):
        """Create the service, or replace its spec."""
        meta = {"name": self.name, "namespace": "models", "annotations": {"serving.kserve.io/deploymentMode": mode, **(notes or {})}}
        spec = {"predictor": {"model": {"modelFormat": {"name": "mar"}, "storageUri": uri}, **predictor}}
        body = {"apiVersion": "/".join(GROUP), "kind": "InferenceService", "metadata": meta, "spec": spec}
        place = (*GROUP, "models", "inferenceservices")
        try:
            self.api.create_namespaced_custom_object(*place, body)
        except client.ApiException as error:
            if error.status != 409:
                raise
            wait_until(lambda: self._replace(place, body), 10, "an update that nobody was faster than")

    def _replace(self, place, body):
        present = self.api.get_namespaced_custom_object(*place, self.name)
        body["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"]
        try:
            return self.api.replace_namespaced_custom_object(*place, self.name, body)
        except client.ApiException as error:
            if error.status != 409:
                raise

    def get(self):
        """The service."""
        return self.api.get_namespaced_custom_object(*GROUP, "models", "inferenceservices", self.name)

    def delete(self):
        """Remove it."""
        self.api.delete_namespaced_custom_object(*GROUP, "models", "inferenceservices", self.name)

    def ready(self, timeout=60):
        """Wait until the newest spec is served."""

        def served():
            body = self.get()
            status = body.get("status") or {}
            state = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
            current = status.get("observedGeneration") == body["metadata"]["generation"]
            return current and state["Ready"] == "True" and status["modelStatus"]["transitionStatus"] == "UpToDate"

        return wait_until(served, timeout, "the service")

    def failed(self):
        """Whether the newest version has been given up."""
        return (self.get()["status"]["modelStatus"].get("copies") or {}).get("failedCopies") == 1

    def traffic(self):
        """Percent by revision, the newest first; from the status."""
        return [entry["percent"] for entry in self.get()["status"]["components"]["predictor"]["traffic"]]

    def pods(self):
        """The names of the pods that run."""
        listed = self.core.list_namespaced_pod("models", label_selector=f"serving.kserve.io/inferenceservice={self.name}").items
        return [pod.metadata.name for pod in listed if pod.status.phase == "Running"]

    def ask(self, value=1):
        """A prediction through the gateway."""
        url = f"http://127.0.0.1:{self.up.installation.ports.gateway}/v1/models/m:predict"
        return requests.post(url, json={"instances": [value]}, headers={"Host": f"{self.name}.models.example.com"}, timeout=60)

    def answers(self, count):
        """How often each number is answered."""
        asked = [self.ask() for _ in range(count)]
        assert all(answer.ok for answer in asked), [answer.text for answer in asked]
        found = [answer.json()["predictions"][0] for answer in asked]
        return {answer: found.count(answer) for answer in set(found)}


@pytest.fixture
def service(up, name, tmp_path):
    made = Services(up, name, tmp_path)
    yield made
    with contextlib.suppress(client.ApiException):  # the test may have deleted it
        made.delete()
