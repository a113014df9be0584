"""Why a version does not serve, in the words of the pods of a real cluster (the testbed's)."""

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from conftest import wait_until
from pdk.engines.kserve import KServe
from pdk.engines.kserve.connection import OF
from pdk.errors import EngineError

RUNTIME = """
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata: {{name: {name}}}
spec:
  supportedModelFormats: [{{name: {name}, autoSelect: true}}]
  containers: [{container}]
"""
SERVES = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"


@pytest.fixture
def cluster():
    """The testbed, and a function that makes a service on it."""
    if not os.environ.get("PDK_TEST_INGRESS") or "KUBECONFIG" not in os.environ:
        pytest.skip("PDK_TEST_INGRESS names no cluster: the testbed is not up")
    name = f"p{uuid.uuid4().hex[:8]}"

    def kubectl(*words, stdin=None):
        return subprocess.run(["kubectl", *words], input=stdin, capture_output=True, text=True, check=False)

    kubectl("create", "namespace", "models")
    engine = KServe(Path(os.environ["KUBECONFIG"]))

    def roll(*, image="pdk.local/base:1", code=SERVES, uri=None, **predictor):
        container = {"name": "kserve-container", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["python3", "-c", code],
                     "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}}  # fmt: skip
        if uri is None:
            spec = {"minReplicas": 1, "containers": [container], **predictor}
        else:
            applied = kubectl("apply", "-f", "-", stdin=RUNTIME.format(name=name, container=json.dumps(container)))
            assert applied.returncode == 0, applied.stderr
            spec = {"minReplicas": 1, "model": {"modelFormat": {"name": name}, "storageUri": uri}, **predictor}
        notes = {"pdk/archive-digest": f"{image}{code}{uri}", "serving.kserve.io/deploymentMode": "Standard"}
        engine.roll("models", name, {"predictor": spec}, notes)
        return engine.wait("models", name, 60)

    def looped():
        """Whether the container runs once more, and then what is said of why it ended."""
        shown = json.loads(kubectl("get", "pods", "-n", "models", "-l", f"{OF}={name}", "-o", "json").stdout)["items"]
        states = [state for pod in shown for state in pod["status"].get("containerStatuses", ())]
        if any(state["restartCount"] and "running" in state["state"] for state in states):
            return engine.problem("models", name)[1]
        return ""

    roll.looped = looped
    yield roll
    kubectl("delete", "isvc", name, "-n", "models", "--ignore-not-found")
    kubectl("delete", "clusterservingruntime", name, "--ignore-not-found")


@pytest.mark.parametrize(
    ("more", "means"),
    [
        ({"image": "pdk.local/no-such-image:1"}, "kserve-container: (ErrImagePull|ImagePullBackOff)"),
        ({"code": "import sys; sys.exit('the weights are missing')"}, "kserve-container: Error with code 1: .*the weights are missing"),
        ({"uri": "s3://no-such-bucket/model"}, "botocore|storage-initializer: Error with code 1: "),
        ({"nodeSelector": {"kind": "none"}}, "has no node: .*node"),
    ],
)
def test_a_version_that_cannot_serve_says_why(cluster, more, means):
    with pytest.raises(EngineError, match=f"(?s){means}"):
        cluster(**more)


def test_a_container_that_is_started_again_still_says_what_it_died_of(cluster):
    with pytest.raises(EngineError, match="the weights are missing"):
        cluster(code="import sys, threading; threading.Event().wait(4); sys.exit('the weights are missing')")
    said = wait_until(cluster.looped, 120, "its next run")
    assert "Error with code 1: the weights are missing" in said


def test_a_service_becomes_ready(cluster):
    status = cluster()
    assert status.phase == "ready"
    assert status.url.endswith(".models.example.com")


def test_a_bad_version_of_a_service_that_serves(cluster):
    assert cluster().phase == "ready"
    with pytest.raises(EngineError, match=r"(?s)kserve-container: Error with code 1: .*the weights are missing"):
        cluster(code="import sys; sys.exit('the weights are missing')")  # the pods of the version before keep the service Ready
    assert cluster(code=SERVES + "  # again").phase == "ready"
