"""kubectl and the `kubernetes` client, unchanged, against the local server; predictions through the gateway."""

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
import requests
import torch
import yaml
from kubernetes import client, config, watch

from conftest import CHECKOUT, wait_until
from pdk.engines.pachyderm import Pachyderm
from pdk.mar import Manifest, write

HANDLER = """
import torch

class Handler:
    def initialize(self, context):
        self.model = torch.jit.load(context.system_properties["model_dir"] + "/model.pt")

    def handle(self, data, context):
        if any(not isinstance(row, (int, float)) for row in data):
            raise ValueError("an instance must be a number")
        return [float(self.model(torch.tensor([float(row)]))) for row in data]
"""


class Scale(torch.nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


@pytest.fixture
def store(up, tmp_path, name):
    """Put models that multiply into a repo; returns their storageUri."""
    engine = Pachyderm("127.0.0.1", up.installation.ports.pachyderm)
    engine.ensure_repo("default", name, "")

    def put(factor, handler=HANDLER):
        torch.jit.save(torch.jit.script(Scale(factor)), str(tmp_path / "model.pt"))
        archive = tmp_path / "scale.mar"
        write(
            archive, Manifest("scale", "1.0", "handler.py", "model.pt"), {"model.pt": tmp_path / "model.pt", "handler.py": handler.encode()}
        )
        files = {"model-store/scale.mar": archive.read_bytes(), "config/example.json": b'{"instances": [1]}'}
        return f"s3://{engine.write('default', name, 'master', 'scale', files)}.master.{name}.default/scale"

    return put


@pytest.fixture
def apply(up, kubectl, tmp_path, name):
    def run(uri):
        body = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "namespace": "models"},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "mar"}, "storageUri": uri}}},
        }
        (tmp_path / "isvc.yaml").write_text(yaml.safe_dump(body))
        return up.run(kubectl, "apply", "-f", str(tmp_path / "isvc.yaml"), check=True)

    yield run
    subprocess.run([kubectl, "delete", "isvc", name, "-n", "models", "--ignore-not-found"], env=up.env, check=False, capture_output=True)


def ready(up, kubectl, name):
    up.run(kubectl, "wait", "--for=condition=Ready", f"isvc/{name}", "-n", "models", "--timeout=60s")


def ask(up, name, body='{"instances": [1, 2]}', path="/v1/models/scale:predict", **more):
    url = f"http://127.0.0.1:{up.installation.ports.gateway}{path}"
    return requests.post(url, data=body, headers={"Host": f"{name}.models.example.com", **more}, timeout=20)


def test_a_model_is_served_rolled_and_deleted(up, kubectl, apply, store, name):
    assert "created" in apply(store(3.0))
    ready(up, kubectl, name)
    answer = ask(up, name)
    assert answer.json() == {"predictions": [3.0, 6.0]}
    assert answer.headers["pdk-model"] == "scale"
    assert answer.headers["x-request-id"]
    columns = up.run(kubectl, "get", "isvc", "-n", "models").splitlines()[0].split()
    assert columns == ["NAME", "URL", "READY", "PREV", "LATEST", "PREVROLLEDOUTREVISION", "LATESTREADYREVISION", "AGE"]
    assert f"http://{name}.models.example.com" in up.run(kubectl, "get", "isvc", name, "-n", "models")
    pod = up.run(kubectl, "get", "pods", "-n", "models", "-l", f"serving.kserve.io/inferenceservice={name}", "-o", "name").strip()
    assert "serving scale" in up.run(kubectl, "logs", pod, "-n", "models")
    assert "Running" in up.run(kubectl, "get", pod, "-n", "models")
    assert "configured" in apply(store(5.0))
    wait_until(lambda: ask(up, name).json() == {"predictions": [5.0, 10.0]}, 60)
    assert "InferenceServiceReady" in up.run(kubectl, "describe", "isvc", name, "-n", "models")
    up.run(kubectl, "delete", "isvc", name, "-n", "models")
    wait_until(lambda: ask(up, name).status_code == 404, 20)
    wait_until(lambda: name not in up.run(kubectl, "get", "pods", "-n", "models"), 40)


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        ("import no_such_module\n", "no_such_module"),
        ("x = 1\n", "handle"),
        (HANDLER.replace("return [", "return 1 or ["), "list of that length"),
    ],
)
def test_a_bad_new_version_leaves_the_old_one_serving(up, kubectl, apply, store, name, handler, words):
    apply(store(3.0))
    ready(up, kubectl, name)
    apply(store(4.0, handler))

    def status():
        return json.loads(up.run(kubectl, "get", "isvc", name, "-n", "models", "-o", "json"))["status"]

    wait_until(lambda: status()["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad", 60)
    assert words in status()["modelStatus"]["lastFailureInfo"]["message"]
    assert ask(up, name).json() == {"predictions": [3.0, 6.0]}
    apply(store(6.0))
    wait_until(lambda: ask(up, name).json() == {"predictions": [6.0, 12.0]}, 60)


def test_requests_at_fault_get_400_and_the_service_stays_up(up, kubectl, apply, store, name):
    apply(store(3.0))
    ready(up, kubectl, name)
    for body in ("not json", "[]", "{}", '{"instances": []}', '{"instances": 1}', '{"instances": ["x"]}'):
        answer = ask(up, name, body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]
        assert answer.headers["pdk-model"] == "scale"
    assert ask(up, name, path="/v1/models/other:predict").status_code == 404
    assert ask(up, name, path="/v1/nothing").status_code == 404
    assert requests.get(
        f"http://127.0.0.1:{up.installation.ports.gateway}/v1/models/scale", headers={"Host": f"{name}.models.example.com"}, timeout=9
    ).json() == {
        "name": "scale",
        "ready": True,
    }
    assert "known:" in ask(up, "nobody").json()["error"]
    assert ask(up, name).status_code == 200


def test_a_predictor_that_dies_is_started_again(up, kubectl, apply, store, name):
    apply(store(3.0))
    ready(up, kubectl, name)
    run = next((up.state / "kserve" / "predictors" / "models" / name).iterdir())
    os.kill(json.loads((run / "started.json").read_text())["pid"], 9)
    wait_until(lambda: json.loads((run.parent / max(p.name for p in run.parent.iterdir()) / "started.json").read_text()), 30)
    wait_until(lambda: ask(up, name).status_code == 200, 60)


def test_what_cannot_be_loaded_says_why(up, kubectl, apply, name):
    apply("s3://master.nothing.default/x")
    body = wait_until(lambda: _failure(up, kubectl, name), 30)
    assert "nothing not found" in body
    assert "storage initializer" in body


def _failure(up, kubectl, name):
    status = json.loads(up.run(kubectl, "get", "isvc", name, "-n", "models", "-o", "json")).get("status") or {}
    return (status.get("modelStatus") or {}).get("lastFailureInfo", {}).get("message", "")


def test_wrong_objects_are_refused(up, kubectl, tmp_path, name):
    for spec, words in (
        ({"predictr": {}}, "spec.predictor"),
        ({"predictor": {"model": {"storageUri": 1}}}, "storageUri"),
        ({"predictor": {"model": {"storageUri": "x"}}, "transformer": {}}, "not supported locally"),
    ):
        body = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "namespace": "models"},
            "spec": spec,
        }
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(body))
        assert words in up.fails(kubectl, "apply", "-f", str(tmp_path / "x.yaml"))
    assert "NotFound" in up.fails(kubectl, "get", "isvc", name, "-n", "models")


def test_the_guides_config_map_and_secret_are_there(up, kubectl):
    for key in (
        "region",
        "mldm_namespace",
        "mldm_url",
        "mlde_host",
        "kserve_model_namespace",
        "kserve_ingress_host",
        "db_connection_string",
        "registry_uri",
        "pdk_name",
    ):
        assert up.run(kubectl, "get", "cm", "pdk-config", f"-o=jsonpath={{.data.{key}}}")
    keys = json.loads(up.run(kubectl, "get", "secret", "pipeline-secret", "-o", "json"))["data"]
    places = {"pachd_lb_service_host", "pachd_lb_service_port"}
    assert set(keys) == {"det_master", "det_user", "det_password", "pac_token", "kserve_namespace"} | places


def test_core_objects_by_kubectl(up, kubectl, name):
    assert "created" in up.run(kubectl, "create", "configmap", name, "--from-literal=a=1", "-n", "models")
    up.run(kubectl, "patch", "cm", name, "-n", "models", "--type", "merge", "-p", '{"data": {"b": "2"}}')
    up.run(kubectl, "patch", "cm", name, "-n", "models", "--type", "json", "-p", '[{"op": "remove", "path": "/data/a"}]')
    up.run(kubectl, "label", "cm", name, "-n", "models", f"mark={name}")
    assert json.loads(up.run(kubectl, "get", "cm", "-n", "models", "-l", f"mark={name}", "-o", "json"))["items"][0]["data"] == {"b": "2"}
    up.run(kubectl, "create", "secret", "generic", name, "--from-literal=k=v", "-n", "models")
    value = up.run(kubectl, "get", "secret", name, "-n", "models", "-o", "jsonpath={.data.k}")
    assert base64.b64decode(value) == b"v"
    assert "already exists" in up.fails(kubectl, "create", "secret", "generic", name, "--from-literal=k=v", "-n", "models")
    up.run(kubectl, "delete", "secret,cm", name, "-n", "models")


def test_the_python_client_lists_watches_and_sees_errors(up, name):
    configuration = client.Configuration()
    config.load_kube_config(str(up.installation.kubeconfig), client_configuration=configuration)
    with client.ApiClient(configuration) as api:
        core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        core.create_namespaced_config_map("models", {"metadata": {"name": name}, "data": {"a": "1"}})
        core.patch_namespaced_config_map(name, "models", {"data": {"a": "2"}})
        events = watch.Watch().stream(core.list_namespaced_config_map, "models", timeout_seconds=2, field_selector=f"metadata.name={name}")
        assert [(event["type"], event["object"].data) for event in events] == [("ADDED", {"a": "2"})]
        with pytest.raises(client.ApiException) as missing:
            custom.get_namespaced_custom_object("serving.kserve.io", "v1beta1", "models", "inferenceservices", "nothing")
        assert missing.value.status == 404
        with pytest.raises(client.ApiException) as strategic:
            custom.patch_namespaced_custom_object(
                "serving.kserve.io",
                "v1beta1",
                "models",
                "inferenceservices",
                "nothing",
                {},
                _content_type="application/strategic-merge-patch+json",
            )
        assert strategic.value.status == 415
        stale = core.read_namespaced_config_map(name, "models")
        core.patch_namespaced_config_map(name, "models", {"data": {"a": "3"}})
        with pytest.raises(client.ApiException) as conflict:
            core.replace_namespaced_config_map(name, "models", stale)
        assert conflict.value.status == 409
        core.delete_namespaced_config_map(name, "models")


def test_without_the_token_nothing_is_answered(up):
    base = f"https://127.0.0.1:{up.installation.ports.kserve}"
    authority = str(up.state / "kserve" / "ca.pem")
    for headers in ({}, {"Authorization": "Bearer forged"}):
        assert requests.get(f"{base}/api/v1/secrets", verify=authority, headers=headers, timeout=9).status_code == 401


def test_an_archive_of_ours_holds_no_secret(up, store, name, tmp_path):
    store(1.0)
    secret = up.installation.secret().encode()
    for path in Path(up.state / "pachyderm" / "store" / "packs").glob("*.pack"):
        assert secret not in path.read_bytes()


def test_the_manifests_for_clusters_are_accepted(up, kubectl):
    assert "pdk-mar" in up.run(kubectl, "apply", "-k", str(CHECKOUT / "deploy" / "base"), "--dry-run=server")
