"""Versions that come and go: ``python bench/rollouts.py`` writes bench/results/rollouts.json.

From moving a data branch back to the earlier model's answer: two commits are trained and deployed, then the branch goes to and fro
between them, which trains nothing; once with services as they are, once with ``--keep-previous``, where the revision before goes on
running. And what rollouts, rollbacks and crashing versions do to a steady load.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parent / "tests")  # not this folder, in which a file has the name of an SDK
sys.path[1:1] = [str(HERE.parent / "tests" / place) for place in ("flow", "conformance/kserve")]

import requests  # noqa: E402
from pachyderm_sdk import Client  # noqa: E402
from pachyderm_sdk.api import pfs  # noqa: E402
from services import Services  # noqa: E402
from test_flow import Flow, pictures  # noqa: E402
from test_under_load import CRASHES, RATE, ROLLBACKS, ROLLOUTS, versions_come_and_go  # noqa: E402

from conftest import CHECKOUT, Up  # noqa: E402
from flow.material import deploy_spec, git_repo, train_spec  # noqa: E402

ROUNDS = 5
LIMITS = {"": 8.0, " --keep-previous 600": 3.0}  # seconds, by what is added to the deploy step's command


def answering(flow):
    """The data commit that the model in service learned from."""
    url = f"http://127.0.0.1:{flow.up.installation.ports.gateway}/v1/models/{flow.name}:predict"
    body = (CHECKOUT / "sample-data" / "requests" / "cat.json").read_bytes()
    answer = requests.post(url, data=body, headers={"Host": f"{flow.name}.models.example.com"}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.headers["pdk-data-commit"]


def measure(up, name, more):
    """Seconds of each move, and whether any job imported torch."""
    code = up.state.parent / name
    code.mkdir()
    git_repo(code)
    flow = Flow(up, name, code)
    deploy = deploy_spec("deploy", "train", name)
    deploy["transform"]["stdin"] = [deploy["transform"]["stdin"][0] + more]
    for spec in (train_spec("train", "data", name, code, "main", model=name), deploy):
        spec["transform"].setdefault("env", {})["PYTHONPROFILEIMPORTTIME"] = "1"  # every import is named in the job's log
        flow.engine.create_pipeline({**spec, "pipeline": flow.pipeline(spec["pipeline"]["name"])})
    commits = [flow.put(pictures(6)), flow.put(pictures(9)[6:9], "/more")]
    for commit in commits:
        assert flow.wait("deploy", commit).state == "SUCCESS", flow.log("deploy", commit)
    repo = pfs.Repo(name="data", type="user", project=pfs.Project(name=name))
    client, found, torch = Client(port=up.installation.ports.pachyderm), [], False
    for number in range(ROUNDS):
        target = commits[number % 2]
        began = time.perf_counter()
        client.pfs.create_branch(branch=pfs.Branch(repo=repo, name="master"), head=pfs.Commit(repo=repo, id=target))
        while answering(flow) != target:
            time.sleep(0.02)
        found.append(time.perf_counter() - began)
        head = flow.engine.head(name, "train", "master")
        assert flow.wait("deploy", head).state == "SUCCESS"
        logs = flow.log("train", head) + flow.log("deploy", head)
        assert "import time:" in logs
        torch = torch or any(line.split("|")[-1].strip() == "torch" for line in logs.splitlines())
    return found, torch


def main():
    """Both ways."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="pdk-bench-") as folder:
        up = Up(Path(folder) / "state").start()
        try:
            for number, (more, limit) in enumerate(LIMITS.items()):
                times, torch = measure(up, f"revert{number}", more)
                seconds, how = max(times), "earlier revision kept warm" if more else "earlier revision started anew"
                rows.append({"case": f"branch moved to the earlier model's answer, {how}; slowest of {ROUNDS}", "unit": "s",
                             "ours": round(seconds, 2), "peer": None, "ratio": round(limit / seconds, 2), "goal": 1})  # fmt: skip
                rows.append({"case": f"the same, median of {ROUNDS}", "unit": "s", "ours": round(statistics.median(times), 2), "peer": None,
                             "ratio": round(limit / statistics.median(times), 2), "goal": 1})  # fmt: skip
                rows.append({"case": f"torch imported in train or deploy, {how}", "unit": "count", "ours": int(torch), "peer": None,
                             "ratio": int(not torch), "goal": 1})  # fmt: skip
            service = Services(up, "under-load", Path(folder))
            load = versions_come_and_go(service, up)
            case = f"requests failed of {load.count:,} at {RATE}/s: {ROLLOUTS} rollouts, {ROLLBACKS} rollbacks, {CRASHES} crashing versions"
            failed = len(load.problems)
            rows.append({"case": case, "unit": "count", "ours": failed, "peer": None, "ratio": int(not failed), "goal": 1})
        finally:
            up.stop()
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    versions = {name: metadata.version(name) for name in ("pdk", "torch", "determined", "pachyderm-sdk", "kubernetes")}
    target = HERE / "results" / "rollouts.json"
    target.write_text(json.dumps({"machine": machine, "versions": versions, "rows": rows}, indent=1) + "\n")
    print(target.read_text())


if __name__ == "__main__":
    main()
