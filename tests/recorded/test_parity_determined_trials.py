"""What trials report, well and badly, and what their logs can be asked for."""

import json

from recorded.master import Refused
from recorded.test_parity_determined_experiments import created, run

ABSENT = "5c2f4f0e-0000-4000-8000-000000000000"


def report(master, trial, values, *, group="training", steps=1, run_id=0, **more):
    metrics = {"trialId": trial, "trialRunId": run_id, "stepsCompleted": steps, "metrics": {"avgMetrics": values}, **more}
    return master.rest("POST", f"/api/v1/trials/{trial}/metrics", {"metrics": metrics, "group": group})


def measured(answer):
    found = [
        [kind, entry[kind]["totalBatches"], entry[kind]["metrics"]["avgMetrics"]]
        for entry in answer["workloads"]
        for kind in ("training", "validation")
        if entry.get(kind)
    ]
    return sorted(found, key=str)


def test_metrics(master, t):
    trial = master.trials(created(master))[0]["id"]
    t.call("training", lambda: report(master, trial, {"loss": 1.5}))
    t.call("again", lambda: report(master, trial, {"loss": 1.5}))
    t.call("validation", lambda: report(master, trial, {"loss": 2}, group="validation"))
    t.call("a group of one's own", lambda: report(master, trial, {"a": 1, "b": {"c": [1, "x"]}}, group="own group"))
    t.call("no numbers", lambda: report(master, trial, {"loss": "NaN", "other": "Infinity"}, steps=2))
    t.call("another metric of the same steps", lambda: report(master, trial, {"more": 3}, group="validation"))
    again = {"loss": 3}
    t.fails("another value", lambda: report(master, trial, again, group="validation"), (400, 500), "overwriting existing metric keys.*loss")
    t.call("what is there", lambda: master.rest("GET", f"/api/v1/trials/{trial}/workloads"), show=measured)
    t.fails("of no trial", lambda: report(master, 999999, {"loss": 1}), 404, "not found")
    t.fails("of another run", lambda: report(master, trial, {"loss": 1}, run_id=7), 400, "run", differs="engine: 500, invalid run id")
    path = f"/api/v1/trials/{trial}/metrics"
    for title, body, means in (
        ("metrics that are a list", {"metrics": {"trialId": trial, "stepsCompleted": 1, "metrics": {"avgMetrics": [1]}}}, "."),
        ("steps that are a text", {"metrics": {"trialId": trial, "stepsCompleted": "many", "metrics": {"avgMetrics": {}}}}, "."),
        ("no object", {"metrics": 3}, "."),
    ):
        t.fails(title, lambda body=body: master.rest("POST", path, {"group": "training", **body}), 400, means)
    for title, bare in (("a bare NaN", "NaN"), ("broken JSON", "{")):
        inner = f'{{"trialId": {trial}, "stepsCompleted": 9, "metrics": {{"avgMetrics": {{"loss": {bare}}}}}}}'
        raw = f'{{"group": "training", "metrics": {inner}}}'

        def send(raw=raw):
            answer = master.session.post(master.address + path, data=raw.encode(), headers={"Content-Type": "application/json"}, timeout=60)
            if answer.status_code >= 300:
                raise Refused(answer)
            return {}

        t.fails(title, send, 400, "NaN|JSON|invalid|looking for|unexpected")
    t.call("progress", lambda: master.rest("POST", f"/api/v1/trials/{trial}/progress", {"trialId": trial, "progress": 0.5}),
           differs="engine: 500 for an experiment that does not run")  # fmt: skip


def test_checkpoints_are_reported_once(master, t):
    experiment = created(master)
    found = master.rest("GET", f"/api/v1/trials/{master.trials(experiment)[0]['id']}")["trial"]
    body = {
        "uuid": ABSENT.replace("4000", "4" + f"{experiment:03d}"[-3:]), "taskId": found["taskId"], "resources": {"a": "3"},
        "metadata": {"steps_completed": 4}, "state": "STATE_COMPLETED", "reportTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    t.call("report", lambda: master.rest("POST", "/api/v1/checkpoints", body), differs="engine: needs an allocation of the task")
    t.fails("of no task", lambda: master.rest("POST", "/api/v1/checkpoints", {**body, "taskId": "9.absent"}), 404, "not found|absent|task",
            differs="engine: 500")  # fmt: skip


def test_logs(master, t):
    trial = master.trials(run(master, steps=2))[0]["id"]
    path = f"/api/v1/trials/{trial}/logs"

    def messages(**query):
        answer = master.session.get(master.address + path, params=query, timeout=60)
        assert answer.status_code == 200, answer.text
        return [json.loads(line)["result"]["message"] for line in answer.text.splitlines() if line.strip()]

    def chosen(found):
        return [line.strip().split("|| ")[-1] for line in found if "starting at" in line or "report_validation" in line]

    t.call("all", messages, show=lambda found: chosen(found)[:1])
    t.call("by text", lambda: messages(searchText="starting at"), show=chosen)
    t.call(
        "by pattern",
        lambda: messages(searchText="start.* 0", enableRegex="true"),
        show=chosen,
        differs="engine: finds nothing by any pattern",
    )
    t.call("by nothing", lambda: messages(searchText="no such line"), show=chosen)
    t.call("the first", lambda: messages(limit=2), show=len)
    t.call("the last", lambda: messages(limit=2, orderBy="ORDER_BY_DESC"), show=len)
    t.call("by level", lambda: messages(levels="LOG_LEVEL_ERROR"), show=chosen)
    t.call("before time began", lambda: messages(timestampBefore="2001-01-01T00:00:00Z"), show=len)
    t.call("after the end of time", lambda: messages(timestampAfter="2101-01-01T00:00:00Z"), show=len)
    master.det(
        "trial", "logs", str(trial), "--head", "3", show=lambda text: len([line for line in text.splitlines() if "Trial log" not in line])
    )
    master.det(
        "trial", "logs", str(trial), "--tail", "2", show=lambda text: len([line for line in text.splitlines() if "Trial log" not in line])
    )
    t.call("fields", lambda: master.rest("GET", path + "/fields"), show=lambda a: sorted(a.get("result", a))[:0])
