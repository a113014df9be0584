"""The main job on real Pachyderm and real KServe, for each model store: commit, train, archive, serve, predict, and what goes wrong."""

import json

import pytest

from conftest import CHECKOUT, wait_until
from e2e.cluster import STORES, Load, run
from pdk.demo import DATA, DEPLOY, MODEL

DRAWINGS = CHECKOUT / "sample-data" / "dogs-and-cats"
MORE = CHECKOUT / "sample-data" / "more-dogs-and-cats"
IN_POD_ONLY = """        import os

        if os.path.isdir("/mnt/models"):
            raise RuntimeError("the weights need a device that is not here")
        properties, manifest"""


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("store", STORES)
def test_the_main_job(flow, code, store):
    flow.arguments = STORES[store]
    flow.create()
    # commit → train → archive → InferenceService Ready → curl
    first = flow.put(DRAWINGS, "/data1")
    flow.both(first)
    shown = run("kubectl", "-n", "models", "get", "inferenceservices", "dog-cat", "-o", "json")
    conditions = {entry["type"]: entry["status"] for entry in json.loads(shown)["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    uri = json.loads(shown)["spec"]["predictor"]["model"]["storageUri"]
    assert uri.startswith({"pachyderm": "s3://", "aws": "s3://models/", "gcp": "gs://models/"}[store])
    flow.serves(first)
    flow.is_right()
    assert 'Host: dog-cat.models.example.com"' in flow.log(DEPLOY)
    # the same as the catalogue sees it
    seen = wait_until(lambda: (one := flow.seen(first))["states"]["predict"] == "ok" and one, 60, "the request in the log")
    assert (seen["state"], seen["cause"], seen["model"], seen["services"]) == ("ok", None, "dogs-and-cats", ["models/dog-cat"])
    assert set(seen["states"].values()) == {"ok"}
    assert seen["experiment"] > 0
    assert all(step["seconds"] >= 0 for step in seen["steps"][:4])

    # a second commit rolls over under load
    with Load(flow.ingress) as load:
        second = flow.put(MORE, "/data2")
        flow.both(second)
        wait_until(lambda: load.answers.get(second, 0) >= 10, 60, "the new version's answers")
    assert not load.failures
    assert set(load.answers) == {first, second}
    flow.is_right()

    # a bad model: it passes the deploy step's own trial, and dies where it serves
    code.branch("bad", "handler.py", "        properties, manifest", IN_POD_ONLY)
    flow.create(update=True, gitRef="bad")
    third = flow.put(min((DRAWINGS / "cats").iterdir()), "/data3/cat.1000.jpg")
    assert flow.job(MODEL, third)[0] == "JOB_SUCCESS", flow.log(MODEL)[-4000:]
    assert flow.job(DEPLOY, third)[0] == "JOB_FAILURE"
    said = flow.log(DEPLOY)
    assert "the weights need a device that is not here" in said, said[-3000:]
    assert flow.predict("cat")[:2] == ("200", second)
    seen = flow.seen(third)
    assert seen["states"] == {"commit": "ok", "train": "ok", "archive": "ok", "serve": "failed", "predict": "waiting"}
    assert "the weights need a device that is not here" in seen["cause"]["reason"]
    turned = seen["cause"]["first_red"], seen["cause"]["last_green"]
    assert (seen["cause"]["step"], turned) == ("serve", (flow.first_failure(DEPLOY, second), second))
    assert seen["cause"]["differences"]["files"] == {"added": 1}
    assert seen["cause"]["serves"] == [f"models/dog-cat: version {second}"]

    # the data as they were: the earlier model serves again, and nothing is trained
    flow.create(update=True)
    known = flow.jobs(MODEL)
    run("pachctl", "create", "branch", f"{DATA}@master", "--head", first)
    reverted = wait_until(lambda: next(iter(set(flow.jobs(MODEL)) - set(known)), None), 60, "the reverted data's job")
    flow.both(reverted)
    assert "its checkpoint is registered again" in flow.log(MODEL)
    flow.serves(first)
    flow.is_right()

    # the pipelines go, the service stays
    run("pachctl", "delete", "pipeline", DEPLOY)
    run("pachctl", "delete", "pipeline", MODEL)
    flow.is_right()
