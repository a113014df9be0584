"""From a commit to a prediction, split by step, on `pdk up` and on the testbed: bench/results/flow.json.

Run it on the testbed after ``make e2e`` has built the images: ``testbed exec .venv/bin/python bench/flow.py``. The experiment learns
nothing (bench/nothing), so that what is left is the flow. Both places are asked in turn, with the same pachctl, template and code.
"""

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parent / "tests")  # not this folder, in which a file has the name of an SDK

import requests  # noqa: E402

from conftest import CHECKOUT, Up  # noqa: E402
from e2e.cluster import STORES, TEMPLATE, Flow, Master, served_code, set_up  # noqa: E402
from flow.material import commit_all, template_words  # noqa: E402
from pdk.demo import DATA, DEPLOY, HOST, MODEL, PREDICT, PROJECT  # noqa: E402

ROUNDS = 3
LIMITS = {"pdk up": {"own": 2.0, "whole": 15.0}, "testbed": {"own": 5.0, "whole": 40.0}}  # seconds
STEPS = {"train": MODEL, "deploy": DEPLOY}
TIMES = re.compile(r"time: ([\d.]+) s, of which imports ([\d.]+) s, waiting ([\d.]+) s, own ([\d.]+) s")
BODY = (CHECKOUT / "sample-data" / "requests" / "cat.json").read_bytes()


class Place:
    """Where the flow runs: an environment for pachctl, an ingress, and what its jobs print."""

    def __init__(self, name, env, ingress, log):
        self.name, self.env, self.ingress, self.log = name, env, ingress, log
        self.local, self.lines = name == "pdk up", dict.fromkeys(STEPS, 0)

    def pachctl(self, *words, stdin=None):
        done = subprocess.run(["pachctl", *words], env=self.env, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{self.name}: pachctl {' '.join(words)}: {done.stderr}")
        return done.stdout

    def create(self, arguments):
        self.pachctl("config", "update", "context", "--project", PROJECT)
        self.pachctl("create", "pipeline", "--jsonnet", str(TEMPLATE), *template_words({"example": "dogs-and-cats", **arguments}))

    def answers(self, version):
        """Wait until a version answers."""
        while True:
            answer = requests.post(f"{self.ingress}{PREDICT}", BODY, headers={"Host": HOST}, timeout=30)
            if answer.headers.get("pdk-model-version") == version and answer.status_code == 200:
                return
            time.sleep(0.02)

    def round(self, number):
        """Seconds of each part of one flow."""
        began = time.time()
        self.pachctl("put", "file", f"{DATA}@master:/{number}", stdin=f"{self.name} {began}")
        version = json.loads(self.pachctl("inspect", "commit", f"{DATA}@master", "--raw"))["commit"]["id"]
        at = time.time()
        found = {"commit": at - began}
        for step, pipeline in STEPS.items():
            job = json.loads(self.pachctl("wait", "job", f"{pipeline}@{version}", "--raw"))
            if job["state"] != "JOB_SUCCESS":
                sys.exit(f"{self.name}: {pipeline}: {job.get('reason')}\n{self.log(step, version)[-3000:]}")
            ended = datetime.fromisoformat(job["finished"]).timestamp()
            found[step], at = ended - at, ended
        self.answers(version)
        now = time.time()
        found |= {"first answer": now - at, "whole": now - began}
        for step in STEPS:
            found |= self.parts(step, version)
        around = sum(found[step] - found[f"{step}, program"] for step in STEPS) if self.local else 0.0  # that engine is ours too
        own = found["commit"] + found["train, own"] + found["deploy, own"] + around + found["first answer"]
        return {**found, "own": own}

    def parts(self, step, version):
        """What the step itself says of its time."""
        deadline = time.monotonic() + 20
        while len(said := TIMES.findall(self.log(step, version))) <= self.lines[step]:
            if time.monotonic() > deadline:
                sys.exit(f"{self.name}: {step} does not say where its time went:\n{self.log(step, version)[-2000:]}")
            time.sleep(0.2)
        self.lines[step] = 0 if self.local else len(said)  # there each job has a log of its own
        whole, imports, waiting, own = map(float, said[-1])
        return {f"{step}, program": whole, f"{step}, imports": imports, f"{step}, waiting": waiting, f"{step}, own": own}


def printed(env, job):
    """What a job of `pdk up` has printed."""
    return subprocess.run(["pdk", "logs", job, "--project", PROJECT], env=env, capture_output=True, text=True, check=True).stdout


def experiment(folder):
    """The experiment that learns nothing, where the template looks for dogs-and-cats."""
    place = folder / "experiments" / "dogs-and-cats"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(HERE / "nothing", place, ignore=shutil.ignore_patterns("__pycache__"))
    commit_all(folder)


def rows(measured):
    """One row for each part and place; medians."""
    made = []
    for name, rounds in measured.items():
        for part in rounds[0]:
            ours, limit = statistics.median(found[part] for found in rounds), LIMITS[name].get(part)
            case = {"own": "all that is neither training, imports nor waiting", "whole": "commit to prediction, training nothing"}.get(
                part, part
            )
            made.append({"case": f"{name}: {case}", "unit": "s", "ours": round(ours, 2), "peer": None,
                         "ratio": round(limit / ours, 2) if limit else None, "goal": 1 if limit else None})  # fmt: skip
    return made


def measure(home):
    """Rounds on both places, in turn."""
    local = Up(home / "local" / "state").start()
    master = Master.named(home / "master")
    try:
        with served_code(home / "code") as code:
            experiment(code.folder)
            set_up(home / "deploy", master, code)
            with Flow(os.environ["PDK_TEST_INGRESS"], code, master).watched() as flow:
                gateway = f"http://127.0.0.1:{local.installation.ports.gateway}"
                env = {key: value for key, value in local.env.items() if key != "PACHD_ADDRESS"}  # which names the testbed's
                near = Place("pdk up", env, gateway, lambda step, version: printed(env, f"{STEPS[step]}@{version}"))
                far = Place("testbed", dict(os.environ), flow.ingress, lambda step, _: flow.logs[STEPS[step]].text())
                shutil.copytree(code.folder, home / "local" / "code")
                for place in (near, far):
                    place.pachctl("create", "project", PROJECT)
                    place.pachctl("create", "repo", DATA, "--project", PROJECT)
                near.create({"gitUrl": str(home / "local" / "code")})
                far.create(
                    {**STORES["pachyderm"], "registry": "pdk.local", "gitUrl": code.url, "gitSecret": "git", "sharedFolder": master.shared}
                )
                measured = {place.name: [] for place in (near, far)}
                for number in range(ROUNDS + 1):  # the first one warms up: pods' images, the zygote
                    for place in (near, far):
                        found = place.round(number)
                        print(place.name, {key: round(value, 2) for key, value in found.items()}, flush=True)
                        if number:
                            measured[place.name].append(found)
                return measured
    finally:
        master.stop()
        local.stop()


def main():
    """Measure and write."""
    with tempfile.TemporaryDirectory(prefix="pdk-bench-") as folder:
        measured = measure(Path(folder))
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    versions = {name: metadata.version(name) for name in ("pdk", "torch", "determined", "pachyderm-sdk")} | {
        "pachd": "2.12.2",
        "kserve": "0.20.0",
    }
    target = HERE / "results" / "flow.json"
    target.write_text(json.dumps({"machine": machine, "versions": versions, "rows": rows(measured)}, indent=1) + "\n")
    print(target.read_text())


if __name__ == "__main__":
    main()
