"""Experiments and trials, from create to delete."""

import json
import re

import yaml

from recorded.master import TIME

SCRIPT = """
import select, sys
import determined as det

info = det.get_cluster_info()
hparams = info.trial.hparams
with det.core.init() as core:
    steps = 0
    if info.latest_checkpoint:
        with core.checkpoint.restore_path(info.latest_checkpoint) as path:
            steps = int((path / "steps").read_text())
    print("starting at", steps)
    while steps < hparams.get("steps", 3):
        steps += 1
        core.train.report_training_metrics(steps, {"loss": 2.0 / steps, "rate": 0.5})
        core.train.report_validation_metrics(steps, {"loss": 1.0 / steps, "accuracy": steps * 0.25})
        core.train.report_metrics("inference", steps, {"seconds": steps, "word": "text", "flag": True, "deep": {"er": 1}})
        core.train.report_metrics("odd", steps, {"nan": float("nan"), "inf": float("inf"), "none": None, "list": [1, 2]})
        core.train.report_progress(steps / hparams.get("steps", 3))
        with core.checkpoint.store_path({"steps_completed": steps, "said": "by the trial"}) as (path, _):
            (path / "steps").write_text(str(steps))
        if steps == hparams.get("fail_at"):
            raise RuntimeError("fails as asked")
        while hparams.get("wait"):
            select.select([], [], [], 0.1)
            if core.preempt.should_preempt():
                sys.exit(0)
"""
BASE = {
    "name": "any", "entrypoint": "python3 train.py", "searcher": {"name": "single", "metric": "loss"}, "max_restarts": 0,
    "reproducibility": {"experiment_seed": 7}, "checkpoint_storage": {"save_trial_best": 9},
}  # fmt: skip
API = "/api/v1/experiments"
RECORD = (
    "name", "description", "labels", "notes", "state", "archived", "numTrials", "searcherType", "progress", "projectName", "workspaceName",
    "username", "resourcePool", "checkpointCount", "parentArchived", "unmanaged",
)  # fmt: skip


def record(answer):
    """What an experiment's record says of it, whatever the installation."""
    found = answer.get("experiment", answer)
    found["searcherType"] = found["searcherType"].strip('"')  # the engine quotes it
    return {
        **{key: found.get(key) for key in RECORD},
        "labels": sorted(found["labels"]),
        "ended": bool(found.get("endTime")),
        "forked": bool(found.get("forkedFrom")),
    }


def created(master, **changes):
    """A paused experiment's number."""
    return master.create({**BASE, **changes}, SCRIPT, activate=False)["experiment"]["id"]


def run(master, config=BASE, **hparams):
    """A finished experiment's number."""
    id_ = master.create({**config, "hyperparameters": hparams}, SCRIPT)["experiment"]["id"]
    master.ended(id_)
    return id_


def test_a_paused_experiment(master, t):
    id_ = created(master, labels=["one", "two"], description="said")
    t.call("as created", lambda: master.rest("GET", f"{API}/{id_}"), show=record)
    t.call(
        "its trial", lambda: master.trials(id_), show=lambda found: [entry["state"] for entry in found], differs="engine: QUEUED or none"
    )
    t.call("pause again", lambda: master.rest("POST", f"{API}/{id_}/pause"))
    changes = {"name": "other", "description": "new", "notes": "# noted", "labels": ["three"]}
    t.call("patch", lambda: master.rest("PATCH", f"{API}/{id_}", changes), show=record)
    t.call("patch one field", lambda: master.rest("PATCH", f"{API}/{id_}", {"notes": ""}), show=record)
    t.fails("archive while it lives", lambda: master.rest("POST", f"{API}/{id_}/archive"), 400, "terminal|PAUSED")
    t.fails("delete while it lives", lambda: master.rest("DELETE", f"{API}/{id_}"), 400, "PAUSED|terminal|state")
    t.call("kill", lambda: master.rest("POST", f"{API}/{id_}/kill"))
    t.call("killed", lambda: master.ended(id_), show=record)
    t.call("kill again", lambda: master.rest("POST", f"{API}/{id_}/kill"))
    t.call("cancel again", lambda: master.rest("POST", f"{API}/{id_}/cancel"))
    for verb in ("activate", "pause"):
        again = "the engine answers 404, as if it were not there"
        t.fails(f"{verb} when killed", lambda verb=verb: master.rest("POST", f"{API}/{id_}/{verb}"), 400, "CANCELED", differs=again)
    t.call("archive", lambda: master.rest("POST", f"{API}/{id_}/archive"))
    t.fails("archive again", lambda: master.rest("POST", f"{API}/{id_}/archive"), 400, "archive")
    t.call("archived", lambda: master.rest("GET", f"{API}/{id_}"), show=record)
    t.call("unarchive", lambda: master.rest("POST", f"{API}/{id_}/unarchive"))
    t.fails("unarchive again", lambda: master.rest("POST", f"{API}/{id_}/unarchive"), 400, "archive")
    t.call("cancel a paused one", lambda: master.rest("POST", f"{API}/{created(master)}/cancel"))


def test_experiments_that_are_none(master, t):
    for method, path, status in (
        ("GET", "", 404), ("GET", "/trials", 404), ("GET", "/checkpoints", 404), ("GET", "/model_def", 404), ("PATCH", "", 404),
        ("POST", "/activate", 404), ("POST", "/pause", 404), ("POST", "/cancel", 404), ("POST", "/kill", 404), ("POST", "/archive", 404),
        ("POST", "/unarchive", 404), ("DELETE", "", 404), ("GET", "/searcher/best_searcher_validation_metric", 404),
    ):  # fmt: skip
        body = {} if method in ("PATCH", "POST") else None
        t.fails(f"{method} {path}", lambda m=method, p=path, b=body: master.rest(m, f"{API}/999999{p}", b), status, "not found|999999")
    for path in ("", "/logs", "/workloads", "/checkpoints", "/kill"):
        method = "POST" if path == "/kill" else "GET"
        t.fails(f"trial {path}", lambda m=method, p=path: master.rest(m, f"/api/v1/trials/999999{p}"), 404, "not found|999999")
    t.fails("a number that is none", lambda: master.rest("GET", f"{API}/one"), 400, "parsing|number|one")


def trial_record(answer):
    found = answer.get("trial", answer)
    keys = ("state", "hparams", "restarts", "totalBatchesProcessed", "checkpointCount", "latestTraining", "latestValidation",
            "bestValidation", "summaryMetrics", "logPolicyMatched", "exitedReason")  # fmt: skip
    best = found.get("bestCheckpoint") or {}
    return {**{key: found.get(key) for key in keys}, "best checkpoint at": best.get("totalBatches"), "ended": bool(found.get("endTime"))}


def test_a_run_from_create_to_delete(master, t, tmp_path):
    id_ = run(master, steps=3)
    t.call("the experiment", lambda: master.rest("GET", f"{API}/{id_}"), show=record)
    trial = master.trials(id_)[0]["id"]
    t.call("the trial", lambda: master.rest("GET", f"/api/v1/trials/{trial}"), show=trial_record)
    t.call(
        "trials, of the experiment", lambda: master.rest("GET", f"{API}/{id_}/trials"), show=lambda a: [len(a["trials"]), a["pagination"]]
    )
    t.call(
        "best metric",
        lambda: master.rest("GET", f"{API}/{id_}/searcher/best_searcher_validation_metric"),
        show=lambda a: round(a["metric"], 6),
    )
    listed = {"sortByAttr": "SORT_BY_SEARCHER_METRIC", "orderBy": "ORDER_BY_ASC", "states": "STATE_COMPLETED"}

    def points(answer):
        return [
            [point["metadata"]["steps_completed"], point["state"], point["training"].get("searcherMetric"), sorted(point["resources"])]
            for point in answer["checkpoints"]
        ]

    t.call("checkpoints by metric", lambda: master.rest("GET", f"{API}/{id_}/checkpoints", **listed), show=points)
    by_steps = {"sortByAttr": "SORT_BY_BATCH_NUMBER", "orderBy": "ORDER_BY_DESC"}
    t.call("checkpoints of the trial", lambda: master.rest("GET", f"/api/v1/trials/{trial}/checkpoints", **by_steps), show=points)
    found = master.rest("GET", f"{API}/{id_}/checkpoints", **by_steps, states="STATE_COMPLETED")["checkpoints"][0]

    def point(answer):
        made = answer["checkpoint"]
        training = {key: made["training"].get(key) for key in ("hparams", "validationMetrics", "searcherMetric")}
        return {"state": made["state"], "metadata": made["metadata"], "training": training}

    t.call("a checkpoint", lambda: master.rest("GET", f"/api/v1/checkpoints/{found['uuid']}"), show=point)
    absent = "5c2f4f0e-0000-4000-8000-000000000000"
    t.fails("a checkpoint that is none", lambda: master.rest("GET", f"/api/v1/checkpoints/{absent}"), 404, "not found")

    def metrics(answer):
        return sorted(
            [kind, entry[kind].get("totalBatches"), entry[kind].get("metrics")] for entry in answer["workloads"] for kind in entry
        )

    def flat(answer):
        return [
            [kind, entry[kind]["totalBatches"], entry[kind].get("metrics")]
            for entry in answer["workloads"]
            for kind in ("training", "validation")
            if entry.get(kind)
        ]

    t.call("workloads", lambda: master.rest("GET", f"/api/v1/trials/{trial}/workloads"), show=lambda a: sorted(flat(a), key=str))
    master.det("experiment", "describe", str(id_), show=lambda text: [line for line in lines(text) if "any" not in line])
    master.det("experiment", "list-trials", str(id_), "--csv", show=lambda text: text.splitlines()[0])
    master.det("trial", "describe", str(trial), "--csv", show=lambda text: text.splitlines()[0])
    master.det("experiment", "list-checkpoints", str(id_), "--csv", show=lambda text: [text.splitlines()[0], len(text.splitlines())])
    master.det("trial", "logs", str(trial), means="starting at 0")
    config = master.det("experiment", "config", str(id_), means="entrypoint: python3 train.py")
    assert yaml.safe_load(config)["hyperparameters"] == {"steps": {"type": "const", "val": 3}}
    metadata = {"checkpoint": {"metadata": {"mine": 1}}}
    t.call("its metadata", lambda: master.rest("POST", f"/api/v1/checkpoints/{found['uuid']}/metadata", metadata), show=point)
    master.det("experiment", "download-model-def", str(id_), "--output-dir", str(tmp_path), show=lambda text: "")
    t.call("file tree", lambda: master.rest("GET", f"{API}/{id_}/file_tree"), show=lambda a: [[f["name"], f["isDir"]] for f in a["files"]])
    t.call("delete", lambda: master.rest("DELETE", f"{API}/{id_}"))


def lines(text):
    text = text.partition("Workloads:")[0]  # det pairs them by their times, now so, now otherwise
    found = [TIME.sub("TIME", " ".join(line.split())) for line in text.splitlines() if not line.startswith("-")]
    return [re.sub(r"^\d+ \| (\d+ \| (?=\w+ \| TIME \| TIME \| \{))?", "ID | ", line) for line in found]


def test_a_run_that_fails(master, t):
    id_ = run(master, fail_at=2)
    t.call("the experiment", lambda: master.rest("GET", f"{API}/{id_}"), show=record)
    trial = master.trials(id_)[0]["id"]
    t.call("the trial", lambda: master.rest("GET", f"/api/v1/trials/{trial}"), show=trial_record)
    master.det("trial", "logs", str(trial), means="fails as asked")
    again = run(master, {**BASE, "max_restarts": 1}, fail_at=1)
    trial = master.trials(again)[0]
    t.call("one that goes on from its checkpoint", lambda: master.rest("GET", f"{API}/{again}"), show=record)
    t.call("its trial", lambda: master.rest("GET", f"/api/v1/trials/{trial['id']}"), show=trial_record)
    t.call("continue what failed", lambda: master.rest("POST", f"{API}/continue", {"id": id_, "overrideConfig": "{}"}), show=list)
    t.call("continued", lambda: master.ended(id_), show=record)
    master.det("trial", "logs", str(master.trials(id_)[0]["id"]), means="starting at 2")
    more = json.dumps({"hyperparameters": {"steps": 5}})
    t.call("continue with more", lambda: master.rest("POST", f"{API}/continue", {"id": id_, "overrideConfig": more}), show=list)
    t.call("it trained on", lambda: master.ended(id_), show=record)
    trial = master.trials(id_)[0]
    # the engine keeps the old hyperparameters on record
    t.call(
        "its trial, the same",
        lambda: master.rest("GET", f"/api/v1/trials/{trial['id']}"),
        show=lambda a: {**trial_record(a), "hparams": ""},
    )
    for title, override, means in (
        ("with another searcher", {"searcher": {"name": "random", "max_trials": 2}}, "single searcher|searcher"),
        ("in another project", {"project": "other"}, "project"),
        ("in another workspace", {"workspace": "other"}, "workspace"),
    ):
        body = {"id": id_, "overrideConfig": json.dumps(override)}
        t.fails(f"continue {title}", lambda body=body: master.rest("POST", f"{API}/continue", body), 400, means)
    t.fails("continue nothing", lambda: master.rest("POST", f"{API}/continue", {"id": 999999, "overrideConfig": "{}"}), 404, "not found")
    paused = created(master)
    t.fails(
        "continue what lives", lambda: master.rest("POST", f"{API}/continue", {"id": paused}), 400, "non terminal", differs="engine: 500"
    )


def test_a_search(master, t):
    config = {**BASE, "searcher": {"name": "random", "metric": "loss", "max_trials": 2}}
    hparams = {"steps": 2, "x": {"type": "double", "minval": 0, "maxval": 1}, "y": {"type": "int", "minval": 1, "maxval": 9}}
    id_ = run(master, config, **hparams)
    t.call("the experiment", lambda: master.rest("GET", f"{API}/{id_}"), show=record)
    t.call("its trials", lambda: master.trials(id_), show=lambda found: sorted((entry["hparams"] for entry in found), key=str))
    t.fails(
        "continue what is complete", lambda: master.rest("POST", f"{API}/continue", {"id": id_}), 400, "completed", differs="engine: 500"
    )
    grid = {**config, "searcher": {"name": "grid", "metric": "loss"}}
    id_ = run(master, grid, steps=1, x={"type": "int", "minval": 1, "maxval": 2, "count": 2})
    t.call("a grid's trials", lambda: master.trials(id_), show=lambda found: sorted((entry["hparams"] for entry in found), key=str))


def test_listing_and_forking(master, t):
    first = created(master, name=master.name, labels=["a"])
    fork = master.create({**BASE, "name": master.name + "2"}, parentId=first, activate=False)
    t.call("a fork", lambda: fork, show=record)
    t.fails("a fork of nothing", lambda: master.create(BASE, parentId=999999), 404, "not found|999999")

    def names(answer):
        return [found["name"] for found in answer["experiments"]]

    t.call("by name", lambda: master.rest("GET", API, name=master.name), show=names, differs="engine: newest last")
    t.call("sorted", lambda: master.rest("GET", API, name=master.name, sortBy="SORT_BY_ID", orderBy="ORDER_BY_DESC"), show=names)
    t.call("by label", lambda: master.rest("GET", API, name=master.name, labels="a"), show=names)
    t.call("by state", lambda: master.rest("GET", API, name=master.name, states="STATE_COMPLETED"), show=names)
    page = {"name": master.name, "sortBy": "SORT_BY_ID", "limit": 1, "offset": 1}
    t.call("a page", lambda: master.rest("GET", API, **page), show=lambda a: [names(a), a["pagination"]])
    t.call("label by det", lambda: master.det("experiment", "label", "add", str(first), "b"), show=lambda text: "")
    t.call("labels", lambda: master.rest("GET", f"{API}/{first}"), show=record)
