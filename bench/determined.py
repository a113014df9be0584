"""The local Determined server: ``python bench/determined.py`` writes bench/results/determined.json.

Absolute limits: there is no peer (a real master on the testbed takes 10 to 11 s for an experiment that trains nothing).
"""

import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

# instead of this folder, in which this file would stand for the package of its name
sys.path[0] = str(Path(__file__).parent.parent / "tests")

import aiohttp
import yaml
from determined.experimental import Determined
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from clients.determined.test_determined import CONFIG, MODEL
from conftest import Up, wait_until
from pdk.data import files as commit_files

ROUNDS = 9
REPORTS, CLIENTS = 6000, 32
LIGHT_TRIALS, REAL_TRIALS = 100, 12
FILES, FILE_BYTES = 2000, 9000
PRINTS = """
import time
for number in range(100):
    print("at", time.time(), flush=True)
    time.sleep(0.03)
"""


def experiment(sdk, folder, code, **changes):
    """Seconds from create to completed, and the experiment."""
    source = folder / "code"
    source.mkdir(exist_ok=True)
    (source / ("model_def.py" if code is MODEL else "run.py")).write_text(code)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
    began = time.monotonic()
    made = sdk.create_experiment(str(folder / "config.yaml"), str(source))
    made.wait(interval=0.02)
    return time.monotonic() - began, made


def importing():
    """Seconds that a fresh process takes to import torch."""
    found = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        found.append(time.monotonic() - began)
    return statistics.median(found)


async def reports(address, token, trial, kill=None):
    """Metric reports a second, each answered after it is durable, and the steps of those that were answered.

    Args:
        kill: an installation whose servers are killed when a third has been answered.
    """
    numbers, answered, group = iter(range(1, REPORTS + 1)), set(), "killed" if kill else "many"
    url, headers = f"{address}/api/v1/trials/{trial}/metrics", {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=CLIENTS)) as session:

        async def client():
            for number in numbers:
                report = {"trialId": trial, "trialRunId": 1, "stepsCompleted": number, "metrics": {"avgMetrics": {"loss": 1 / number}}}
                async with session.post(url, json={"metrics": report, "group": group}) as answer:
                    answer.raise_for_status()
                answered.add(number)
                if kill and len(answered) == REPORTS // 3:
                    kill.kill_all()

        began = time.monotonic()
        await asyncio.gather(*(client() for _ in range(CLIENTS)), return_exceptions=kill is not None)
        return REPORTS / (time.monotonic() - began), answered


async def latencies(address, token, trial):
    """Seconds from a printed line to the reader of `det trial logs -f`."""
    found, url = [], f"{address}/api/v1/trials/{trial}/logs?follow=true"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session, session.get(url) as answer:
        async for line in answer.content:
            message = json.loads(line)["result"]["message"]
            if message.startswith("at "):
                found.append(time.time() - float(message.split()[1]))
    return found


def sdk_of(up):
    """The SDK, logged in."""
    address = f"http://127.0.0.1:{up.installation.ports.determined}"
    return Determined(master=address, user="determined", password=up.installation.secret())


def experiments(add, up, folder):
    """Real trials: the first, warm ones, through torch_distributed, two at a time."""
    sdk = sdk_of(up)
    first, _ = experiment(sdk, folder, MODEL)
    torch = importing()
    add("first experiment in an environment, beyond import torch", "s", first - torch, 4)
    warm = [experiment(sdk, folder, MODEL)[0] for _ in range(ROUNDS)]
    add("create to completed, environment warm, median", "s", statistics.median(warm), 1)
    both = [experiment(sdk, folder, MODEL, resources={"slots_per_trial": 2})[0] for _ in range(3)]
    add("through torch_distributed on two slots, beyond two imports of torch, median", "s", statistics.median(both) - 2 * torch, 4)
    searcher = {**CONFIG["searcher"], "name": "random", "max_trials": REAL_TRIALS}
    seconds, made = experiment(sdk, folder, MODEL, searcher=searcher)
    assert len(made.list_trials()) == REAL_TRIALS
    add("real trials on two slots, warm", "1/s", REAL_TRIALS / seconds, 2, more_is_better=True)


def protocol(add, up, folder):
    """Reports, whether they are there after kill -9, and logs."""
    address = f"http://127.0.0.1:{up.installation.ports.determined}"
    login = {"username": "determined", "password": up.installation.secret()}
    token, sdk = asyncio.run(post(f"{address}/api/v1/auth/login", login))["token"], sdk_of(up)
    trial = experiment(sdk, folder, MODEL)[1].list_trials()[0].id
    rate, _ = asyncio.run(reports(address, token, trial))
    add("metric reports accepted and durable", "1/s", rate, 1500, more_is_better=True)
    trial = experiment(sdk, folder, MODEL)[1].list_trials()[0].id
    _, answered = asyncio.run(reports(address, token, trial, kill=up))
    up.start()
    kept = {report.steps_completed for report in sdk_of(up).get_trial(trial).iter_metrics("killed")}
    lost = len(answered - kept)
    add(f"reports lost by kill -9 amid them, of {len(answered)} acknowledged (counted from 1)", "", lost + 1, 1)
    source = folder / "code"
    (source / "run.py").write_text(PRINTS)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "entrypoint": "python3 run.py"}))
    made = sdk_of(up).create_experiment(str(folder / "config.yaml"), str(source))
    found = sorted(asyncio.run(latencies(address, token, made.list_trials()[0].id)))
    add("log line to its follower, p95", "s", found[int(len(found) * 0.95)], 0.2)


def data(up, *, again=False):
    """Milliseconds that `pdk.data` takes for a file of a commit, and the limit."""
    os.environ["XDG_CACHE_HOME"] = str(up.state / "bench-cache")
    port = up.installation.ports.pachyderm
    if not again:
        source = up.state / "bench-files"
        source.mkdir()
        for number in range(FILES):
            (source / f"{number}").write_bytes(os.urandom(FILE_BYTES))
        up.run("pdk", "create", "repo", "bench")
        up.run("pdk", "put", "file", "bench@master", "-r", "-f", str(source))
    repo = pfs.Repo(name="bench", type="user", project=pfs.Project(name="default"))
    head = Client(host="127.0.0.1", port=port).pfs.inspect_branch(branch=pfs.Branch(repo=repo, name="master")).head.id
    began = time.monotonic()
    found = commit_files({"host": "127.0.0.1", "port": port, "project": "default", "repo": "bench", "branch": head})
    assert sum(len(file.read()) for file in found) == FILES * FILE_BYTES
    return (time.monotonic() - began) / FILES * 1000, 0.4


def light(add, up, folder):
    """Trials that speak the protocol and compute nothing, asha deciding."""
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("light_server.py")), str(up.state)])
    try:
        wait_until(lambda: answers(up), 30, "the server")
        searcher = {"name": "async_halving", "metric": "loss", "max_trials": LIGHT_TRIALS, "num_rungs": 3, "max_time": 16,
                    "time_metric": "batches", "max_concurrent_trials": 4}  # fmt: skip
        axis = {"x": {"type": "double", "minval": 0, "maxval": 1}}
        seconds, made = experiment(sdk_of(up), folder, MODEL, searcher=searcher, hyperparameters=axis)
        states = [trial.state.name for trial in made.list_trials()]
        assert states == ["COMPLETED"] * LIGHT_TRIALS, states
        add("trials by light REST clients, asha deciding", "1/s", LIGHT_TRIALS / seconds, 20, more_is_better=True)
    finally:
        server.terminate()
        server.wait(30)


def answers(up):
    """Whether the server is there."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", up.installation.ports.determined), 1).close()
        return True
    return False


def main():
    rows = []

    def add(case, unit, ours, limit, *, more_is_better=False):
        ratio = ours / limit if more_is_better else limit / ours
        rows.append({"case": case, "unit": unit, "ours": round(ours, 4), "peer": None, "ratio": round(ratio, 4), "goal": 1})
        print(json.dumps(rows[-1]), flush=True)

    with tempfile.TemporaryDirectory(prefix="pdk-bench-") as name:
        folder = Path(name)
        up = Up(folder / "state").start()
        try:
            experiments(add, up, folder)
            protocol(add, up, folder)
            add("training data through PFS, a file of 9 kB", "ms", *data(up))
            add("the same from the cache, in the second epoch", "ms", *data(up, again=True))
        finally:
            up.stop()
        light(add, up, folder)
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    versions = {name: metadata.version(name) for name in ("pdk", "determined", "torch", "aiohttp")}
    target = Path(__file__).parent / "results" / "determined.json"
    target.write_text(json.dumps({"machine": machine, "versions": versions, "rows": rows}, indent=1) + "\n")


async def post(url, body):
    """The JSON answer to a POST."""
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        return await answer.json()


if __name__ == "__main__":
    main()
