"""Whatever is sent to the Kubernetes API: the answer says what is wrong with it, and never that the server is."""

import copy
import json

import pytest
import requests

from conftest import Alone

WRONG = (7, "x", [1], {"a": 1}, True, None, [{"a": None}], 1e300, {"name": 1}, ["x"])
OBJECTS = {
    "/api/v1/namespaces": {"metadata": {"name": "one", "labels": {"a": "b"}}},
    "/api/v1/namespaces/models/secrets": {"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "YQ=="}, "stringData": {"b": "b"}},
    "/api/v1/namespaces/models/configmaps": {"metadata": {"name": "c", "annotations": {"a": "b"}}, "data": {"a": "b"}},
    "/api/v1/namespaces/models/serviceaccounts": {"metadata": {"name": "a"}, "secrets": [{"name": "s"}], "imagePullSecrets": []},
    "/apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices": {
        "metadata": {"name": "i", "annotations": {"a": "b"}, "labels": {"a": "b"}, "ownerReferences": [{"name": "o"}]},
        "spec": {
            "predictor": {
                "minReplicas": 0, "maxReplicas": 1, "serviceAccountName": "a", "canaryTrafficPercent": 10, "timeout": 5,
                "model": {
                    "modelFormat": {"name": "pytorch"}, "storageUri": "s3://nowhere/x", "env": [{"name": "A", "value": "B"}],
                    "runtime": "r", "resources": {"limits": {"cpu": 1}},
                },
            }
        },
    },
}  # fmt: skip
MEDIA = (
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)


def paths(value, path=()):
    """The paths of all parts of an object."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, (*path, key))


def replaced(value, path, wrong):
    """The object with something else at a path."""
    if not path:
        return wrong
    made = copy.deepcopy(value)
    parent = made
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = wrong
    return made


@pytest.fixture
def server(tmp_path):
    """A server of its own, whose objects calls may change."""
    alone = Alone(tmp_path / "state", only="kserve").start()
    session = requests.Session()
    session.trust_env = False  # or a bundle that the environment names would go before the server's own authority
    session.base = f"https://127.0.0.1:{alone.installation.ports.kserve}"
    session.verify = str(alone.installation.folder("kserve") / "ca.pem")
    session.headers["authorization"] = f"Bearer {alone.installation.secret()}"
    yield session
    alone.stop()


def test_no_object_patch_and_query_meets_a_defect(server):
    met, refused = [], 0

    def send(method, path, **more):
        answer = server.request(method, server.base + path, **more)
        if answer.status_code >= 500:
            met.append((method, path, more, answer.text))
        return answer

    for base, body in OBJECTS.items():
        assert send("POST", base, json=body).status_code == 201, base
        one = f"{base}/{body['metadata']['name']}"
        for number, path in enumerate(paths(body)):
            for wrong in WRONG:
                changed = replaced(body, path, wrong)
                refused += send("POST", base, json=changed).status_code == 400
                send("PUT", one, json=changed)
                media = MEDIA[number % len(MEDIA)]
                send("PATCH", one, data=json.dumps(changed), headers={"content-type": media})
        for operation in (
            {"op": "replace", "path": "/spec/x/0", "value": 1},
            {"op": "x"},
            {"path": 1, "op": "add"},
            7,
            {"op": "add", "path": "/metadata", "value": 1},
        ):
            send("PATCH", one, data=json.dumps([operation]), headers={"content-type": MEDIA[1]})
        for raw in (b"[", b"[" * 100_000, b"k8s\0\xff\xff", b"\xff", b"a: .inf", b"null", b"7"):
            for media in ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"):
                send("POST", base, data=raw, headers={"content-type": media})
        for query in (
            "limit=x",
            "resourceVersion=x&watch=1",
            "timeoutSeconds=x&watch=1",
            "labelSelector=((",
            "fieldSelector==",
            "dryRun=x",
        ):
            send("GET", f"{base}?{query}")
        for options in (7, [1], {"preconditions": 7}, {"preconditions": {"uid": 7}}):
            send("DELETE", one, json=options)
    send("POST", "/pdk/v1/open-requests", json={"a": "b"})
    assert not met, met[:5]
    assert refused > 100
    assert server.get(f"{server.base}/readyz").text == "ok"
