"""`pachctl logs`: by pipeline, job and datum, as they come, and only their end. (The real engine needs Loki for all of this.)"""

import json
import re
import subprocess

import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from conftest import wait_until

SCRIPT = "echo begin $data; sleep 3; echo end $data; cp /pfs/data/* /pfs/out/"


@pytest.fixture
def pach(up, pachctl, name):
    up.run(pachctl, "create", "project", name)
    run = lambda verb, *words, **more: up.run(pachctl, verb, *words, "--project", name, **more)  # noqa: E731
    run.start = lambda *words: subprocess.Popen([pachctl, *words, "--project", name], env=up.env, stdout=subprocess.PIPE, text=True)
    run("create", "repo", "data")
    for path in ("a", "b"):
        run("put", "file", f"data@master:/{path}", stdin=path)
    return run


def create(pach, name="p", **more):
    spec = {
        "pipeline": {"name": name},
        "transform": {"image": "pdk/train:0.1", "cmd": ["/bin/sh"], "stdin": [SCRIPT]},
        "input": {"pfs": {"repo": "data", "glob": "/*"}},
        "datum_tries": 1,
        **more,
    }
    pach("create", "pipeline", stdin=json.dumps(spec))
    listed = pach("list", "job", "-p", name, "--raw")
    return json.JSONDecoder().raw_decode(listed)[0]["job"]["id"]


def test_logs_are_followed_by_pipeline_job_and_datum(pach, up, name):
    job = create(pach)
    readers = [pach.start("logs", "-f", "-p", "p"), pach.start("logs", "-f", "-j", f"p@{job}")]
    for reader in readers:
        assert reader.stdout.readline() == "begin /pfs/data/a\n"
    assert json.loads(pach("inspect", "job", f"p@{job}", "--raw"))["state"] == "JOB_RUNNING"  # the lines came while it ran
    whole = ["end /pfs/data/a", "begin /pfs/data/b", "end /pfs/data/b"]
    for reader in readers:
        assert reader.communicate(timeout=60)[0].splitlines() == whole
    datums = re.findall(r'"id":\s+"([0-9a-f]{64})"', pach("list", "datum", f"p@{job}", "--raw"))
    by_datum = [pach("logs", "-j", f"p@{job}", "--datum", datum).splitlines() for datum in datums]
    assert sorted(by_datum) == [[f"begin /pfs/data/{path}", f"end /pfs/data/{path}"] for path in "ab"]
    assert pach("logs", "-p", "p", "--inputs", "/b").splitlines() == ["begin /pfs/data/b", "end /pfs/data/b"]
    assert pach("logs", "-p", "p", "--inputs", "/a,/b") == ""
    client = Client(host="127.0.0.1", port=up.installation.ports.pachyderm)  # pachctl has no --tail any more
    last = list(client.pps.get_logs(pipeline=pps.Pipeline(name="p", project=pfs.Project(name=name)), tail=3))
    assert [line.message for line in last] == whole
    assert (last[-1].pipeline_name, last[-1].job_id, last[-1].datum_id in datums) == ("p", job, True)
    wait_until(lambda: pach("logs", "-p", "p", "--since", "1s") == "", 20)
    assert len(pach("logs", "-p", "p", "--since", "1h").splitlines()) == 4


def test_a_failed_job_says_why_and_is_listed_by_its_state(pach):
    job, failed = create(pach), create(pach, "bad", transform={"image": "pdk/train:0.1", "cmd": ["sh", "-c", "echo no such dog; exit 7"]})
    for name, id_ in (("p", job), ("bad", failed)):
        pach("wait", "commit", f"{name}@{id_}")
    found = json.loads(pach("inspect", "job", f"bad@{failed}", "--raw"))
    assert "exited with code 7" in found["reason"]
    assert "no such dog" in found["reason"]
    assert "no such dog" in pach("logs", "-j", f"bad@{failed}")
    assert failed in pach("list", "job", "-p", "bad", "--state", "failure")
    assert failed not in pach("list", "job", "-p", "bad", "--state", "success")
    assert job in pach("list", "job", "-p", "p", "--state", "success", "--state", "killed")
    assert "bad" not in pach("list", "pipeline", "--state", "paused")
