"""Servers that are started again in the midst of the work of others: steps, trials, storage initializers and predictors go on."""

import json
import os
import signal

import requests

from clients.kserve.services import Services
from conftest import wait_until
from flow.test_flow import pictures
from flow.test_kill import fresh, inside


def restart(up, *names):
    """kill -9 of servers; the supervisor starts them again."""
    for name in names:
        wait_until(up.healthy, 60, "all servers")
        os.kill(up.server(name), signal.SIGKILL)


def test_a_flow_goes_on_while_each_engine_is_restarted(own_up, name):
    flow = fresh(own_up, name)
    commit = flow.put(pictures(4))
    wait_until(lambda: "was created" in flow.log("train", commit), 90, "the experiment")
    restart(own_up, "pachyderm")  # while the trial begins to read
    wait_until(lambda: inside(own_up, "pictures: "), 90, "the trial's data")
    restart(own_up, "determined", "kserve")
    wait_until(lambda: inside(own_up, "archive: "), 120, "the archive")
    restart(own_up, "pachyderm", "kserve", "gateway")
    for pipeline in ("train", "deploy"):
        job = flow.wait(pipeline, commit, 180)
        assert job.state == "SUCCESS", (job.reason, flow.log(pipeline, commit))
    assert [version.name for version in flow.versions()] == [commit]
    wait_until(own_up.healthy, 60, "all servers")
    runs = list((own_up.state / "kserve" / "predictors" / "models" / name).glob("*/started.json"))
    before = [json.loads(path.read_text()) for path in runs]
    restart(own_up, "pachyderm", "determined", "kserve", "gateway")
    url = f"http://127.0.0.1:{own_up.installation.ports.gateway}/v1/models/{name}"
    wait_until(own_up.healthy, 60, "all servers")
    wait_until(lambda: requests.get(url, headers={"Host": f"{name}.models.example.com"}, timeout=9).status_code == 200, 30, "an answer")
    assert [json.loads(path.read_text()) for path in runs] == before  # the same process answers


def test_a_model_store_that_is_away_is_waited_for(own_up, name, tmp_path):
    services = Services(own_up, name, tmp_path)
    uri = services.model(1)
    for _ in range(4):  # the pauses before the supervisor's next try grow
        restart(own_up, "pachyderm")
    services.apply(uri)
    services.ready()
    events = services.core.list_namespaced_event("models").items
    assert [event.message for event in events if event.type == "Warning"] == []
