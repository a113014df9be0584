"""Kubernetes with KServe: kubectl, the kubernetes client and the kserve SDK."""

import pytest
from kubernetes import client

from recorded.cluster import GROUP, manifest

N = ("-n", "models")


@pytest.fixture
def k(cluster, recorded_cluster):
    return cluster


@pytest.fixture
def place(k):
    return (*GROUP, k.namespace, "inferenceservices")


def test_kubectl_from_create_to_delete(k):
    body = manifest(k.body())
    k.kubectl("create", *N, "-f", "-", stdin=body)
    k.kubectl("create", *N, "-f", "-", stdin=body)
    k.kubectl("get", "isvc", k.name, *N, "-o", "name")
    k.kubectl("get", "inferenceservices.serving.kserve.io", k.name, *N, "-o", "jsonpath={.spec.predictor.model.storageUri}")
    k.kubectl("get", "isvc", f"{k.name}-none", *N)
    k.kubectl("get", "isvc", k.name, "-n", "no-such-namespace")
    k.kubectl("label", "isvc", k.name, *N, "colour=red")
    k.kubectl("label", "isvc", k.name, *N, "colour=blue")
    k.kubectl("label", "isvc", k.name, *N, "colour=blue", "--overwrite")
    k.kubectl("get", "isvc", *N, "-l", "colour=blue,colour!=red", "-o", "name", "--field-selector", f"metadata.name={k.name}")
    k.kubectl("annotate", "isvc", k.name, *N, "note=one two")
    k.kubectl("get", "isvc", k.name, *N, "-o", "jsonpath={.metadata.labels.colour} {.metadata.annotations.note} {.metadata.generation}")
    k.kubectl("get", "isvc", k.name, *N, "-o", "custom-columns=N:.metadata.name,F:.spec.predictor.model.modelFormat.name")
    k.kubectl("wait", "isvc", k.name, *N, "--for=jsonpath={.spec.predictor.minReplicas}=1", "--timeout=5s")
    k.kubectl("wait", "isvc", k.name, *N, "--for=condition=Ready", "--timeout=1s")
    k.kubectl("delete", "isvc", k.name, *N)
    k.kubectl("delete", "isvc", k.name, *N)
    k.kubectl("delete", "isvc", k.name, *N, "--ignore-not-found")


def test_kubectl_applies_and_patches(k):
    k.kubectl("apply", *N, "-f", "-", stdin=manifest(k.body()))
    k.kubectl("apply", *N, "-f", "-", stdin=manifest(k.body()))
    k.kubectl("apply", *N, "-f", "-", stdin=manifest(k.body(maxReplicas=3)))
    k.kubectl("patch", "isvc", k.name, *N, "--type", "merge", "-p", '{"spec":{"predictor":{"maxReplicas":4}}}')
    k.kubectl("patch", "isvc", k.name, *N, "--type", "merge", "-p", '{"spec":{"predictor":{"maxReplicas":4}}}')
    k.kubectl("patch", "isvc", k.name, *N, "--type", "json", "-p", '[{"op":"replace","path":"/spec/predictor/maxReplicas","value":5}]')
    k.kubectl(
        "patch",
        "isvc",
        k.name,
        *N,
        "--type",
        "json",
        "-p",
        '[{"op":"test","path":"/spec/predictor/maxReplicas","value":7}]',
    )
    k.kubectl("patch", "isvc", k.name, *N, "--type", "strategic", "-p", '{"spec":{"predictor":{"maxReplicas":6}}}')
    k.kubectl("patch", "isvc", f"{k.name}-none", *N, "--type", "merge", "-p", "{}")
    k.kubectl("get", "isvc", k.name, *N, "-o", "jsonpath={.spec.predictor.maxReplicas}")
    k.kubectl("replace", *N, "-f", "-", stdin=manifest(k.body(maxReplicas=2)), means="metadata.resourceVersion|replaced")
    k.kubectl("apply", *N, "--dry-run=server", "-f", "-", stdin=manifest(k.body(maxReplicas=9)))
    k.kubectl("get", "isvc", k.name, *N, "-o", "jsonpath={.spec.predictor.maxReplicas}")
    k.kubectl("apply", *N, "--server-side", "-f", "-", stdin=manifest(k.body(name=f"{k.name}-2")))
    k.kubectl("apply", *N, "--server-side", "-f", "-", stdin=manifest(k.body(name=f"{k.name}-2", maxReplicas=3)))
    k.kubectl("get", "isvc", f"{k.name}-2", *N, "-o", "jsonpath={.spec.predictor.maxReplicas}")
    k.kubectl("scale", "isvc", k.name, *N, "--replicas=2", means="could not find the requested resource|not found")


def test_what_the_api_refuses(k):
    def refused(body, means="", **more):
        k.kubectl("create", *N, "-f", "-", stdin=manifest(body), means=means, **more)

    refused(k.body(name="Upper"))
    refused(k.body(name="1digit"))
    refused(k.body(name="a.b"))
    refused({**k.body(), "spec": {}}, differs="KServe's webhook panics; here the field that is missing is named")
    refused({**k.body(), "spec": {"predictor": {}}}, differs="the webhook names all frameworks that it knows")
    refused(k.body(minReplicas=3, maxReplicas=2))
    refused(k.body(minReplicas=-1))
    refused(k.body(maxReplicas=-1))
    refused(k.body(minReplicas="two"))
    refused(k.body(nothing="here"))
    refused({**k.body(), "spec": {**k.body()["spec"], "elsewhere": 1}})
    refused({**k.body(), "kind": "InferenceThing"}, differs="kubectl asks for OpenAPI v2 then, which the local server does not have")
    k.kubectl("create", "-n", "no-such-namespace", "-f", "-", stdin=manifest(k.body()))


def test_the_kubernetes_client(k, place):
    api = k.custom

    def spec(answer):
        meta = {key: answer["metadata"].get(key) for key in ("name", "namespace", "generation", "labels")}
        return {"kind": answer["kind"], "metadata": meta, "most": answer["spec"]["predictor"]["maxReplicas"]}

    body = k.body()
    body["metadata"]["labels"] = {"case": k.name}
    k.call(
        "create", lambda: api.create_namespaced_custom_object(*place, body), show=lambda a: {key: a[key] for key in ("apiVersion", "kind")}
    )
    k.call("create again", lambda: api.create_namespaced_custom_object(*place, body))
    found = k.call("get", lambda: api.get_namespaced_custom_object(*place, k.name), show=lambda a: sorted(a["metadata"]["labels"]))
    k.call("get of none", lambda: api.get_namespaced_custom_object(*place, "none-of-that-name"))
    k.call("list by label", lambda: api.list_namespaced_custom_object(*place, label_selector=f"case={k.name}"),
           show=lambda a: [a["kind"], a["apiVersion"], len(a["items"])])  # fmt: skip
    k.call(
        "list by another label", lambda: api.list_namespaced_custom_object(*place, label_selector="case=none"), show=lambda a: a["items"]
    )
    k.call("list by a bad selector", lambda: api.list_namespaced_custom_object(*place, label_selector="=x"), show=lambda a: a["items"],
           differs="the parser of selectors words its errors in its own way")  # fmt: skip
    k.call("cluster-wide list", lambda: api.list_cluster_custom_object(*GROUP, "inferenceservices", label_selector=f"case={k.name}"),
           show=lambda a: [item["metadata"]["name"] for item in a["items"]])  # fmt: skip
    k.call(
        "merge patch", lambda: api.patch_namespaced_custom_object(*place, k.name, {"spec": {"predictor": {"maxReplicas": 2}}}), show=spec
    )
    stale = {**found, "metadata": {**found["metadata"], "resourceVersion": "1"}}
    k.call("replace of an old version", lambda: api.replace_namespaced_custom_object(*place, k.name, stale))
    no_version = {**body, "metadata": {**body["metadata"]}}
    k.call("replace without a version", lambda: api.replace_namespaced_custom_object(*place, k.name, no_version))
    other = {**found, "metadata": {**found["metadata"], "name": "other"}}
    k.call("replace under another name", lambda: api.replace_namespaced_custom_object(*place, k.name, other))
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="none"))
    k.call("delete of another one", lambda: api.delete_namespaced_custom_object(*place, k.name, body=wrong))
    k.call("delete", lambda: api.delete_namespaced_custom_object(*place, k.name), show=lambda _: "accepted")


def test_config_maps_and_secrets(k):
    core, name, space = k.core, k.name, k.namespace
    meta = client.V1ObjectMeta(name=name, labels={"case": name})
    k.call("create a config map", lambda: core.create_namespaced_config_map(space, client.V1ConfigMap(metadata=meta, data={"a": "1"})))
    k.call("patch it", lambda: core.patch_namespaced_config_map(name, space, {"data": {"a": None, "b": "2"}}), show=lambda a: a.data)
    k.call("read it", lambda: core.read_namespaced_config_map(name, space), show=lambda a: [a.kind, a.data])
    k.call("read none", lambda: core.read_namespaced_config_map("none", space))
    k.call("create it again", lambda: core.create_namespaced_config_map(space, client.V1ConfigMap(metadata=meta)))
    secret = client.V1Secret(metadata=meta, string_data={"user": "me"})
    k.call("create a secret", lambda: core.create_namespaced_secret(space, secret), show=lambda a: [a.type, a.data, a.string_data])
    bad = client.V1Secret(metadata=client.V1ObjectMeta(name=f"{name}-2"), data={"user": "not base64!"})
    k.call("create a broken secret", lambda: core.create_namespaced_secret(space, bad))
    k.call("delete the secret", lambda: core.delete_namespaced_secret(name, space), show=lambda _: "accepted")
    k.call("delete the config map", lambda: core.delete_namespaced_config_map(name, space), show=lambda _: "accepted")
    k.call("read a namespace", lambda: core.read_namespace(space), show=lambda a: [a.metadata.labels, a.status.phase])
    k.call("read no namespace", lambda: core.read_namespace("no-such-namespace"))


SDK = """
import json, os
from kserve import KServeClient
from kubernetes import client

name, space = os.environ["NAME"], os.environ["NAMESPACE"]
kserve = KServeClient(config_file=os.environ["KUBECONFIG"])

def say(work):
    try:
        made = work()
        print(json.dumps(made if not isinstance(made, dict) else {"kind": made["kind"], "name": made.get("metadata", {}).get("name")}))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error).splitlines()[0][:60].strip()]))
"""


def test_the_kserve_sdk(k, place):
    k.custom.create_namespaced_custom_object(*place, k.body())
    k.sdk("get", SDK + "say(lambda: kserve.get(name, namespace=space))")
    k.sdk("get of none", SDK + "say(lambda: kserve.get('none-of-that-name', namespace=space))")
    k.sdk("is it ready", SDK + "say(lambda: kserve.is_isvc_ready(name, namespace=space))")
    k.sdk("wait for it", SDK + "say(lambda: kserve.wait_isvc_ready(name, namespace=space, timeout_seconds=2, polling_interval=1))")
    k.sdk("delete", SDK + "say(lambda: kserve.delete(name, namespace=space))")
    k.sdk("delete again", SDK + "say(lambda: kserve.delete(name, namespace=space))")
