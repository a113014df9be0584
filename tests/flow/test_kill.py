"""kill -9 of everything in the middle of the work; the next start goes on, and nothing is made twice."""

import json
import os
import signal
from pathlib import Path

import pytest

from conftest import wait_until
from flow.material import git_repo
from flow.test_flow import Flow, pictures
from pdk.engines.kserve import KServe


def fresh(own_up, name):
    code = own_up.state.parent / name
    code.mkdir()
    git_repo(code, epochs=2)
    flow = Flow(own_up, name, code)
    flow.pipelines(code, "main")
    return flow


def inside(own_up, words):
    """Whether a log of a job or trial says this."""
    logs = [Path(folder) / "log" for folder, _, names in os.walk(own_up.state) if "log" in names]  # folders may go while it looks
    return any(words in path.read_text("utf-8", "replace") for path in logs)


@pytest.mark.parametrize("everything", [True, False], ids=["programs too", "servers only"])
@pytest.mark.parametrize(("server", "words"), [("train", "pictures: "), ("deploy", "archive: ")])
def test_killed_in_the_middle(own_up, name, server, words, everything):
    flow = fresh(own_up, name)
    commit = flow.put(pictures(4))
    wait_until(lambda: inside(own_up, words), 90, f"{words!r} in a log")
    if everything:
        for pid in own_up.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        own_up.process.wait()
    else:
        own_up.kill_all()
    own_up.start()
    for pipeline in ("train", "deploy"):
        job = flow.wait(pipeline, commit, 180)
        assert job.state == "SUCCESS", (job.reason, flow.log(pipeline, commit))
    assert [version.name for version in flow.versions()] == [commit]
    service = KServe(own_up.installation.kubeconfig).find("models", name)
    assert service["metadata"]["generation"] == 1
    assert service["metadata"]["annotations"]["pdk/model-version"] == commit
    assert len(list(flow.engine._client.pfs.list_commit(repo=_store(flow)))) == 1
    own_up.stop()
    left = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in own_up.processes()]
    assert not left


def _store(flow):
    from pachyderm_sdk.api import pfs

    return pfs.Repo(name="model-store", type="user", project=pfs.Project(name=flow.name))


def test_a_predictor_outlives_its_server_and_keeps_answering(own_up, name):
    import requests

    flow = fresh(own_up, name)
    commit = flow.put(pictures(3))
    job = flow.wait("deploy", commit, 180)
    assert job.state == "SUCCESS", job.reason
    run = next((own_up.state / "kserve" / "predictors" / "models" / name).iterdir())
    before = json.loads((run / "started.json").read_text())
    own_up.kill_all()
    own_up.start()
    url = f"http://127.0.0.1:{own_up.installation.ports.gateway}/v1/models/{name}"
    wait_until(lambda: requests.get(url, headers={"Host": f"{name}.models.example.com"}, timeout=9).status_code == 200, 30)
    assert json.loads((run / "started.json").read_text()) == before
