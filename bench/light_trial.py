"""Stands in for the warm process in a benchmark: its trials speak the protocol of a trial and compute nothing.

Run folders come one a line, as for `pdk.local.determined.runtime.zygote`; each is started by the same launcher, in namespaces of its own.
"""

import http.client
import json
import os
import sys
from pathlib import Path

STEPS = 16


def be_trial(_argv, environment):
    """Report until the searcher says stop, or to the end."""
    host, _, port = environment["DET_MASTER"].removeprefix("http://").partition(":")
    server = http.client.HTTPConnection(host, int(port))
    trial, run, allocation = environment["DET_TRIAL_ID"], int(environment["DET_TRIAL_RUN_ID"]), environment["DET_ALLOCATION_ID"]
    quality = json.loads(environment["DET_HPARAMS"])["x"]

    def call(method, path, body=None):
        headers = {"Authorization": f"Bearer {environment['DET_SESSION_TOKEN']}", "Content-Type": "application/json"}
        server.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = server.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{path}: {content.decode()}")
        return json.loads(content or b"{}")

    call("GET", f"/api/v1/tasks/{environment['DET_TASK_ID']}/context_directory")
    call("POST", "/api/v1/runs/start", {"trialId": int(trial)})
    call("GET", f"/api/v1/allocations/{allocation}/resources/{environment['DET_RESOURCES_ID']}/rendezvous")
    steps = 1
    while steps <= STEPS:
        report = {"trialId": int(trial), "trialRunId": run, "stepsCompleted": steps}
        for group, values in (("training", {"loss": quality}), ("validation", {"loss": quality + 1 / steps, "batches": steps})):
            call("POST", f"/api/v1/trials/{trial}/metrics", {"group": group, "metrics": {**report, "metrics": {"avgMetrics": values}}})
        if call("GET", f"/api/v1/allocations/{allocation}/signals/preemption?timeout_seconds=0")["preempt"]:
            call("POST", f"/api/v1/allocations/{allocation}/signals/ack_preemption", {})
            break
        steps *= 4
    sys.stdout.flush()
    os._exit(0)


def main():
    """Serve."""
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "src")
    from pdk.kit import launcher, loopback

    assert loopback.MACHINE  # imported once, here, as the warm process does it
    print("ready", flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            launcher.launch(Path(line.rstrip("\n")), be_trial)
            os._exit(0)
        os.waitpid(child, 0)
        print("started", flush=True)


if __name__ == "__main__":
    main()
