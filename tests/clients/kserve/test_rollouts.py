"""Revisions: shares of the requests, going forth and back, replicas as many as needed, none where nobody asks."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from clients.kserve.services import HANDLER
from conftest import wait_until
from pdk.engines.kserve import KServe
from pdk.errors import EngineError, UserError

BROKEN = "raise OSError('no weights here')\n"
DYING = """
import os, signal

def predict(instances):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def predictor(service):
    return service.get()["status"]["components"]["predictor"]


def test_a_canary_gets_its_share_and_is_promoted(service):
    service.apply(service.model(1))
    service.ready()
    first = predictor(service)["latestRolledoutRevision"]
    assert service.traffic() == [100]
    service.apply(service.model(2), canaryTrafficPercent=30)
    service.ready()
    found = service.answers(200)
    assert 30 <= found[2] <= 95, found
    status = predictor(service)
    shares = [(entry["percent"], entry["latestRevision"], entry.get("tag")) for entry in status["traffic"]]
    assert shares == [(30, True, None), (70, False, "prev")]
    assert status["latestRolledoutRevision"] == first != status["latestReadyRevision"]
    service.apply(service.model(2), canaryTrafficPercent=60)
    wait_until(lambda: service.traffic() == [60, 40], 20, "the new share")
    service.apply(service.model(2))
    wait_until(lambda: service.traffic() == [100], 20, "the promotion")
    wait_until(lambda: service.answers(20) == {2: 20}, 20, "all requests")
    wait_until(lambda: predictor(service).get("previousRolledoutRevision") == first, 10, "the end of the roll-out")
    assert predictor(service)["latestRolledoutRevision"] == status["latestReadyRevision"]


def test_a_canary_is_rolled_back_and_another_follows(service):
    service.apply(service.model(1))
    service.ready()
    for answer in (2, 3):
        service.apply(service.model(answer), canaryTrafficPercent=50)
        service.ready()
        assert service.answers(60).keys() == {1, answer}
        service.apply(service.model(answer), canaryTrafficPercent=0)
        wait_until(lambda: service.answers(20) == {1: 20}, 20, "the rollback")
    service.apply(service.model(1))
    service.ready()
    assert service.answers(20) == {1: 20}
    wait_until(lambda: len(service.pods()) == 1, 30, "the end of the canary's pod")


def test_services_that_always_ask_for_a_share(service):
    service.apply(service.model(1), canaryTrafficPercent=20)
    service.ready()
    assert service.traffic() == [100]
    service.apply(service.model(2), canaryTrafficPercent=20)
    while service.get()["status"].get("observedGeneration") != 2 or service.traffic() == [100]:
        assert service.answers(1).keys() <= {1, 2}
    found = service.answers(100)
    assert 5 <= found[2] <= 40, found


def test_going_back_leads_to_what_served(service, up):
    engine = KServe(up.installation.kubeconfig)

    def roll(answer, handler=HANDLER):
        model = {"modelFormat": {"name": "mar"}, "storageUri": service.model(answer, handler)}
        notes = {"pdk/archive-digest": str(answer), "pdk/model-version": f"v{answer}"}
        engine.roll("models", service.name, {"predictor": {"minReplicas": 1, "model": model}}, notes)
        return engine.wait("models", service.name, 60)

    roll(1)
    with pytest.raises(UserError, match="has had no version before"):
        engine.roll_back("models", service.name)
    with pytest.raises(EngineError, match="no weights here"):
        roll(2, BROKEN)
    roll(3)
    made = engine.roll_back("models", service.name)
    assert made["metadata"]["annotations"]["pdk/model-version"] == "v1"
    engine.wait("models", service.name, 60)
    wait_until(lambda: service.answers(10) == {1: 10}, 20, "the version before")
    with pytest.raises(UserError, match="has no canary"):
        engine.promote("models", service.name)


def test_a_canary_that_fails_never_gets_a_request(service):
    service.apply(service.model(1))
    service.ready()
    service.apply(service.model(2, BROKEN), canaryTrafficPercent=50)
    wait_until(lambda: service.get()["status"]["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad", 60, "the failure")
    assert service.answers(30) == {1: 30}
    status = service.get()["status"]
    assert "no weights here" in status["modelStatus"]["lastFailureInfo"]["message"]
    assert service.traffic() == [100]
    service.apply(service.model(3), canaryTrafficPercent=50)
    service.ready()
    assert service.answers(60).keys() == {1, 3}


@pytest.mark.parametrize(("percent", "replicas"), [(50, 1), (100, 1), (50, 2), (100, 2)])
def test_a_version_that_dies_of_its_requests_costs_none(service, percent, replicas):
    service.apply(service.model(1), minReplicas=replicas)
    service.ready()
    service.apply(service.model(2, DYING), canaryTrafficPercent=percent, minReplicas=replicas)
    service.ready()
    while not service.failed():  # it dies of requests only
        assert service.answers(5) == {1: 5}
    assert service.answers(30) == {1: 30}


def test_shares_outlive_the_server(service, up):
    service.apply(service.model(1))
    service.ready()
    service.apply(service.model(2), canaryTrafficPercent=50)
    service.ready()
    pods = set(service.pods())
    os.kill(up.server("kserve"), signal.SIGKILL)
    wait_until(lambda: answering(service), 30, "the API")
    assert service.answers(60).keys() == {1, 2}
    assert set(service.pods()) == pods
    service.apply(service.model(2), canaryTrafficPercent=0)
    wait_until(lambda: service.answers(20) == {1: 20}, 20, "the rollback")


def answering(service):
    try:
        return service.get()
    except Exception:  # noqa: BLE001 - whatever a client makes of a server that is not there yet
        return None


def test_the_revision_before_is_kept_warm_where_asked(service):
    notes = {"pdk/keep-previous-s": "60"}
    service.apply(service.model(1), notes=notes)
    service.ready()
    first = set(service.pods())
    service.apply(service.model(2), notes=notes)
    service.ready()
    assert len(service.pods()) == 2
    service.apply(service.model(1), notes=notes)
    wait_until(lambda: service.answers(5) == {1: 5}, 3, "going back")
    assert first <= set(service.pods())


def test_standard_deployments_know_no_shares(service):
    service.apply(service.model(1), mode="Standard")
    service.ready()
    service.apply(service.model(2), mode="Standard", canaryTrafficPercent=10)
    wait_until(lambda: service.answers(20) == {2: 20}, 60, "the new model")
    assert "traffic" not in predictor(service)


def test_replicas_follow_the_load_down_to_none_and_back(service):
    notes = {"autoscaling.knative.dev/window": "6s"}
    service.apply(service.model(1), notes=notes, minReplicas=0, maxReplicas=2, scaleTarget=2)
    service.ready()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(service.ask, "wait") for _ in range(24)]
        wait_until(lambda: len(service.pods()) == 2, 30, "a second replica")
        assert {future.result().status_code for future in waiting} == {200}
    wait_until(lambda: service.pods() == [], 60, "no replica")
    assert service.get()["status"]["modelStatus"]["copies"]["totalCopies"] == 0
    assert {entry["type"]: entry["status"] for entry in service.get()["status"]["conditions"]}["Ready"] == "True"
    assert service.answers(3) == {1: 3}
    assert len(service.pods()) == 1


@pytest.mark.parametrize(
    ("spec", "means"),
    [
        ({"transformer": {"containers": []}}, "spec.transformer is not supported locally"),
        ({"explainer": {}}, "spec.explainer is not supported locally"),
    ],
)
def test_what_is_not_offered_says_so(service, up, spec, means):
    body = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": service.name},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "mar"}, "storageUri": "s3://x/y"}}, **spec}}  # fmt: skip
    said = up.run("kubectl", "create", "-n", "models", "-f", "-", stdin=json.dumps(body), check=False)
    assert means in said
    graph = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": service.name},
        "spec": {"nodes": {}},
    }
    said = up.run("kubectl", "create", "-n", "models", "-f", "-", stdin=json.dumps(graph), check=False)
    assert "an InferenceGraph is not supported locally" in said
