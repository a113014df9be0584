"""The local Determined server: ``python bench/determined.py`` writes bench/results/determined.json.

Absolute limits: there is no peer (a real master on the testbed takes 10 to 11 s for an experiment that trains nothing).
"""

import asyncio
import json
import os
import platform
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

from conformance.determined.test_determined import CONFIG, MODEL
from conftest import Up

ROUNDS = 9
REPORTS, CLIENTS = 6000, 32
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


async def reports(address, token, trial):
    """Metric reports a second, each answered after it is durable."""
    numbers = iter(range(1, REPORTS + 1))
    url, headers = f"{address}/api/v1/trials/{trial}/metrics", {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=CLIENTS)) as session:

        async def client():
            for number in numbers:
                report = {"trialId": trial, "trialRunId": 1, "stepsCompleted": number, "metrics": {"avgMetrics": {"loss": 1 / number}}}
                async with session.post(url, json={"metrics": report, "group": "training"}) as answer:
                    answer.raise_for_status()

        began = time.monotonic()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return REPORTS / (time.monotonic() - began)


async def latencies(address, token, trial):
    """Seconds from a printed line to the reader of `det trial logs -f`."""
    found, url = [], f"{address}/api/v1/trials/{trial}/logs?follow=true"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session, session.get(url) as answer:
        async for line in answer.content:
            message = json.loads(line)["result"]["message"]
            if message.startswith("at "):
                found.append(time.time() - float(message.split()[1]))
    return found


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
            address = f"http://127.0.0.1:{up.installation.ports.determined}"
            sdk = Determined(master=address, user="determined", password=up.installation.secret())
            first, _ = experiment(sdk, folder, MODEL)
            add("first experiment in an environment, beyond import torch", "s", first - importing(), 4)
            warm = [experiment(sdk, folder, MODEL) for _ in range(ROUNDS)]
            add("create to completed, environment warm, median", "s", statistics.median(seconds for seconds, _ in warm), 1)
            login = {"username": "determined", "password": up.installation.secret()}
            token = asyncio.run(post(f"{address}/api/v1/auth/login", login))["token"]
            trial = warm[-1][1].list_trials()[0].id
            add("metric reports accepted and durable", "1/s", asyncio.run(reports(address, token, trial)), 1500, more_is_better=True)
            source = folder / "code"
            (source / "run.py").write_text(PRINTS)
            (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "entrypoint": "python3 run.py"}))
            made = sdk.create_experiment(str(folder / "config.yaml"), str(source))
            found = sorted(asyncio.run(latencies(address, token, made.list_trials()[0].id)))
            add("log line to its follower, p95", "s", found[int(len(found) * 0.95)], 0.2)
        finally:
            up.stop()
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
