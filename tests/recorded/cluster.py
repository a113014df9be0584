"""The Kubernetes with KServe that the cases run against: this project's server, or with ``--engine testbed`` the real one."""

import json
import os
import re
import subprocess
import uuid

import pytest
import yaml
from kubernetes import client, config
from syrupy.extensions.json import JSONSnapshotExtension

from conftest import program
from environments import environment_of
from recorded.engine import FAILED

GROUP = ("serving.kserve.io", "v1beta1")
MASKED = {"uid", "resourceVersion", "creationTimestamp", "managedFields", "lastTransitionTime", "selfLink", "firstTimestamp",
          "lastTimestamp", "eventTime", "remainingItemCount", "continue", "kubectl.kubernetes.io/last-applied-configuration"}  # fmt: skip
DEFAULTED = {"finalizers", "status", "managedFields"}  # what the real controller and its webhook add in their own time


class Cluster:
    """Clients of a cluster, and names of the case's own."""

    def __init__(self, kubeconfig, kubectl):
        self.kubeconfig, self.kubectl_program = str(kubeconfig), kubectl
        self.name = f"p{uuid.uuid4().hex[:8]}"
        self.namespace = "models"
        self.steps = []
        config.load_kube_config(self.kubeconfig)
        self.custom, self.core = client.CustomObjectsApi(), client.CoreV1Api()
        self._made = []

    def body(self, name=None, **more):
        """An InferenceService."""
        predictor = {"minReplicas": 1, "model": {"modelFormat": {"name": "nothing"}, "storageUri": "s3://none/none"}, **more}
        return {
            "apiVersion": "/".join(GROUP),
            "kind": "InferenceService",
            "metadata": {"name": name or self.name},
            "spec": {"predictor": predictor},
        }

    def mask(self, value, key=""):
        """A value without what differs between two runs."""
        if key in MASKED:
            return "…"
        if isinstance(value, dict):
            return {name: self.mask(part, name) for name, part in sorted(value.items()) if name not in DEFAULTED}
        if isinstance(value, list):
            return [self.mask(part) for part in value]
        if isinstance(value, str):
            value = value.replace(self.name, "NAME").replace(f" from {self.namespace} namespace", "")  # newer kubectls say where from
            value = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID", value)
            return re.sub(r"\b\d+m?s\b", "AGE", value)
        return value

    def kubectl(self, *words, stdin=None, differs="", means=""):
        """A step: its exit code and what kubectl printed, or that `means` stands in it."""
        command = [self.kubectl_program, "--kubeconfig", self.kubeconfig, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=90, check=False)
        printed = [re.sub(r"\s+", " ", line).strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        title = self.mask("kubectl " + " ".join(words)) + (f" < {self.mask(yaml.safe_load(stdin))}" if stdin else "")
        if means:
            assert re.search(means, done.stdout + done.stderr), done.stdout + done.stderr
        noted = {"exit": done.returncode, **({"means": means} if means else {"printed": self.mask(printed)})}
        self.steps.append({"call": title, "differs": differs} if differs else {"call": title, **noted})
        return done.stdout

    def call(self, title, work, *, show=None, differs=""):
        """A step: what a call of the client answered, or the Status that it failed with."""
        try:
            answer = work()
            noted = {"answer": self.mask(show(answer) if show else client.ApiClient().sanitize_for_serialization(answer))}
        except client.ApiException as error:
            answer = None
            body = json.loads(error.body) if (error.body or "").startswith("{") else {"message": error.body}
            noted = {
                "error": error.status,
                "status": self.mask({key: body.get(key) for key in ("reason", "message", "details") if body.get(key)}),
            }
        self.steps.append({"call": title, "differs": differs} if differs else {"call": title, **noted})
        return answer

    def sdk(self, title, code, *, differs=""):
        """A step: what a program with the kserve SDK printed; it finds NAME and NAMESPACE."""
        words = [str(environment_of("kserve")), "-W", "ignore", "-c", code]
        env = {**os.environ, "KUBECONFIG": self.kubeconfig, "NAME": self.name, "NAMESPACE": self.namespace}
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        printed = [self.mask(json.loads(line)) for line in done.stdout.splitlines()]
        self.steps.append(
            {"call": f"kserve SDK: {title}", "differs": differs} if differs else {"call": f"kserve SDK: {title}", "printed": printed}
        )

    def close(self):
        """Remove what the case made."""
        words = [self.kubectl_program, "--kubeconfig", self.kubeconfig, "delete", "isvc,cm,secret", self.name, f"{self.name}-2", "-n"]
        subprocess.run([*words, self.namespace, "--ignore-not-found", "--wait=false"], capture_output=True, check=False)


@pytest.fixture
def cluster(request):
    if request.config.getoption("--engine") == "testbed":
        kubeconfig, kubectl = os.environ["KUBECONFIG"], "kubectl"
        subprocess.run([kubectl, "create", "namespace", "models"], capture_output=True, check=False)
    else:
        up = request.getfixturevalue("up")
        kubeconfig, kubectl = up.installation.kubeconfig, program("kubectl")
    made = Cluster(kubeconfig, kubectl)
    yield made
    made.close()


@pytest.fixture
def recorded_cluster(cluster, snapshot, request):
    """After the case: its steps are what the real cluster answered."""
    yield
    if not request.node.stash.get(FAILED, False):
        assert cluster.steps == snapshot(extension_class=JSONSnapshotExtension, name="steps")


def manifest(body):
    """As a file holds it."""
    return yaml.safe_dump(body)
