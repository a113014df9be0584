"""The model registry, workspaces and projects, templates, and who one is."""

import json

import pytest
from determined.common.experimental.checkpoint import CheckpointSortBy
from determined.experimental import OrderBy

from recorded.test_parity_determined_experiments import API, BASE, run

ABSENT = "5c2f4f0e-0000-4000-8000-000000000000"
MODEL = ("name", "description", "metadata", "labels", "notes", "archived", "numVersions")
VERSION = ("version", "name", "comment", "metadata", "labels", "notes")


def model(answer):
    found = answer.get("model", answer)
    return {key: found.get(key) for key in MODEL}


def version(answer):
    found = answer["modelVersion"]
    return {**{key: found.get(key) for key in VERSION}, "model": found["model"]["name"], "state": found["checkpoint"]["state"]}


def names(answer):
    return [found["name"] for found in answer["models"]]


def test_models(master, t):
    models, name = "/api/v1/models", master.name
    body = {"name": name, "description": "said", "metadata": {"a": 1, "b": "two"}, "labels": ["x", "y"], "notes": "# noted"}
    t.call("create", lambda: master.rest("POST", models, body), show=model)
    t.fails("create again", lambda: master.rest("POST", models, body), 409, "already exists|equal to other")
    t.fails("without a name", lambda: master.rest("POST", models, {"name": ""}), 400, "name")
    t.fails("a name with a slash", lambda: master.rest("POST", models, {"name": "a/b"}), 400, "slash|/|name", differs="engine: accepts it")
    t.fails("a name that is a number", lambda: master.rest("POST", models, {"name": "12"}), 400, "number|name")
    in_absent = {"name": name + "w", "workspaceName": "absent"}
    t.fails("in an absent workspace", lambda: master.rest("POST", models, in_absent), (404, 500), "absent")
    found = t.call("by name", lambda: master.rest("GET", f"{models}/{name}"), show=model)["model"]
    t.call("by number", lambda: master.rest("GET", f"{models}/{found['id']}"), show=model)
    t.fails("of nothing", lambda: master.rest("GET", f"{models}/absent-{name}"), 404, "not found")
    master.rest("POST", models, {"name": name + "2", "labels": ["x"]})
    for title, query in (
        ("by name", {"name": name}), ("by label", {"name": name, "labels": "y"}), ("by description", {"name": name, "description": "said"}),
        ("sorted", {"name": name, "sortBy": "SORT_BY_NAME", "orderBy": "ORDER_BY_DESC"}), ("archived", {"name": name, "archived": "true"}),
        ("a page", {"name": name, "sortBy": "SORT_BY_NAME", "limit": 1, "offset": 1}),
    ):  # fmt: skip
        t.call(f"list {title}", lambda query=query: master.rest("GET", models, **query), show=lambda a: sorted(names(a)))
    t.call("labels", lambda: master.rest("GET", "/api/v1/model/labels"), show=lambda a: sorted({"x", "y"} & set(a["labels"])))
    t.call("patch", lambda: master.rest("PATCH", f"{models}/{name}", {"description": "new", "labels": ["z"]}), show=model)
    t.call("patch metadata", lambda: master.rest("PATCH", f"{models}/{name}", {"metadata": {"c": 3}}), show=model)
    t.fails("patch nothing", lambda: master.rest("PATCH", f"{models}/absent-{name}", {"notes": ""}), 404, "not found")
    t.call("rename", lambda: master.rest("PATCH", f"{models}/{name}2", {"name": name + "3"}), show=model)
    t.fails(
        "rename to a taken one", lambda: master.rest("PATCH", f"{models}/{name}3", {"name": name}), (409, 500), "exist|duplicate|unique"
    )
    t.call("archive", lambda: master.rest("POST", f"{models}/{name}/archive"))
    t.call("archived", lambda: master.rest("GET", f"{models}/{name}"), show=model)
    t.fails("patch what is archived", lambda: master.rest("PATCH", f"{models}/{name}", {"notes": "x"}), (400, 500), "archived")
    t.call("unarchive", lambda: master.rest("POST", f"{models}/{name}/unarchive"))
    t.fails("a version of nothing", lambda: master.rest("POST", f"{models}/{name}/versions", {"checkpointUuid": ABSENT}), 404, "not found")
    t.fails("versions of nothing", lambda: master.rest("GET", f"{models}/absent-{name}/versions"), 404, "not found")
    t.call("delete", lambda: master.rest("DELETE", f"{models}/{name}"))
    t.fails(
        "delete again", lambda: master.rest("DELETE", f"{models}/{name}"), (400, 404, 500), "not found|does not exist|owner|absent|delet"
    )


def test_versions(master, t):
    experiment, name = run(master, steps=2), master.name
    points = master.rest("GET", f"{API}/{experiment}/checkpoints", sortByAttr="SORT_BY_BATCH_NUMBER", states="STATE_COMPLETED")[
        "checkpoints"
    ]
    first, second = points[0]["uuid"], points[1]["uuid"]
    master.rest("POST", "/api/v1/models", {"name": name})
    versions = f"/api/v1/models/{name}/versions"
    body = {
        "checkpointUuid": first,
        "modelName": name,
        "name": "v-one",
        "comment": "first",
        "metadata": {"k": "v"},
        "labels": ["l"],
    }
    t.call("register", lambda: master.rest("POST", versions, body), show=version)
    t.call("register another", lambda: master.rest("POST", versions, {"checkpointUuid": second, "modelName": name}), show=version)
    t.call("the same checkpoint again", lambda: master.rest("POST", versions, {"checkpointUuid": first, "modelName": name}), show=version)
    t.call("one", lambda: master.rest("GET", f"{versions}/1"), show=version)
    t.fails("none", lambda: master.rest("GET", f"{versions}/9"), 404, "not found")
    listed = {"sortBy": "SORT_BY_VERSION", "orderBy": "ORDER_BY_DESC"}
    t.call("list", lambda: master.rest("GET", versions, **listed), show=lambda a: [found["version"] for found in a["modelVersions"]])
    t.call(
        "a page",
        lambda: master.rest("GET", versions, **listed, limit=1),
        show=lambda a: [a["modelVersions"][0]["version"], a["pagination"]],
    )
    change = {"modelName": name, "modelVersionNum": 1, "name": "renamed", "comment": "other", "notes": "more", "labels": ["m"]}
    t.call("patch", lambda: master.rest("PATCH", f"{versions}/1", change), show=version)
    t.call("patch metadata", lambda: master.rest("PATCH", f"{versions}/1", {"metadata": {"only": "this"}}), show=version)
    t.call("the model", lambda: master.rest("GET", f"/api/v1/models/{name}"), show=model)
    t.fails(
        "delete a registered checkpoint",
        lambda: master.rest("DELETE", "/api/v1/checkpoints", {"checkpointUuids": [first]}),
        400,
        "registry",
    )
    removal = {"checkpointUuids": [first], "checkpointGlobs": ["**/*"]}
    t.fails("remove files of it", lambda: master.rest("POST", "/api/v1/checkpoints/rm", removal), 400, "registry")
    for title, globs, means in (("an empty glob", [""], "empty"), ("a glob that climbs", ["../x"], "cannot contain")):
        t.fails(title, lambda g=globs: master.rest("POST", "/api/v1/checkpoints/rm", {**removal, "checkpointGlobs": g}), 400, means)
    unknown = {"checkpointUuids": [ABSENT]}
    t.fails("delete an unknown one", lambda: master.rest("DELETE", "/api/v1/checkpoints", unknown), 404, "not found|exist")
    t.fails("delete its experiment", lambda: master.rest("DELETE", f"{API}/{experiment}"), 400, "regist|model")
    master.det(
        "model",
        "describe",
        name,
        "--json",
        show=lambda text: model(json.loads(text)["model"] if "model" in json.loads(text) else json.loads(text)),
    )
    master.det("model", "list-versions", name, means="Validation Metrics")
    t.call("delete a version", lambda: master.rest("DELETE", f"{versions}/3"))
    t.call("delete the model", lambda: master.rest("DELETE", f"/api/v1/models/{name}"))


def test_the_sdk(master, t):
    experiment, name = run(master, steps=2), master.name
    found = master.sdk.get_experiment(experiment)
    t.call("an experiment", lambda: [found.name, found.state.name, found.progress, found.archived, found.notes, sorted(found.labels or [])])
    trial = found.list_trials()[0]
    t.call("a trial", lambda: [trial.hparams, trial.state.name, trial.summary_metrics["validation_metrics"]["loss"]["min"]])
    for group in ("training", "validation", "inference"):
        t.call(f"{group} metrics", lambda g=group: [[m.group, m.steps_completed, m.metrics] for m in trial.iter_metrics(g)])
    points = found.list_checkpoints(sort_by=CheckpointSortBy.SEARCHER_METRIC, order_by=OrderBy.ASCENDING, max_results=1)
    t.call("the best checkpoint", lambda: [[p.state.name, p.metadata, p.training.validation_metrics] for p in points])
    t.call(
        "a checkpoint's metadata", lambda: points[0].add_metadata({"more": [1, 2]}) or master.sdk.get_checkpoint(points[0].uuid).metadata
    )
    t.call("one key less", lambda: points[0].remove_metadata(["more"]) or master.sdk.get_checkpoint(points[0].uuid).metadata)
    made = master.sdk.create_model(name, "said", {"k": "v"})
    registered = made.register_version(points[0].uuid)
    registered.set_name("named")
    registered.set_notes("noted")
    t.call("a version", lambda: [(v := made.get_version()).model_version, v.name, v.notes, v.checkpoint.uuid == points[0].uuid])
    t.call("all versions", lambda: [v.model_version for v in made.list_versions()])
    made.set_labels(["a", "b"])
    made.add_metadata({"more": "m"})
    made.remove_metadata(["k"])
    t.call("a model", lambda: [(m := master.sdk.get_model(name)).name, m.description, m.metadata, m.labels, m.archived])
    t.call("models by name", lambda: [m.name for m in master.sdk.list_models(name=name)])
    found.set_name("renamed")
    found.set_description("described")
    found.set_notes("noted")
    found.add_label("l")
    again = master.sdk.get_experiment(experiment)
    t.call("an experiment changed", lambda: [again.name, again.description, again.notes, sorted(again.labels)])
    found.archive()
    t.call("archived", lambda: found.reload() or found.archived)
    found.unarchive()
    made.delete()
    with pytest.raises(Exception, match="not found"):
        master.sdk.get_model(name)
    found.delete()


WORKSPACE = ("name", "archived", "immutable", "numProjects", "numExperiments", "username", "pinned", "state", "errorMessage")
PROJECT = ("name", "description", "archived", "immutable", "numExperiments", "numActiveExperiments", "notes", "username")


def workspace(answer):
    found = answer.get("workspace", answer)
    return {key: found.get(key) for key in WORKSPACE}


def project(answer):
    found = answer.get("project", answer)
    return {key: found.get(key) for key in PROJECT}


def test_workspaces_and_projects(master, t):
    name = master.name
    made = t.call("create", lambda: master.rest("POST", "/api/v1/workspaces", {"name": name}), show=workspace)["workspace"]["id"]
    t.fails("create again", lambda: master.rest("POST", "/api/v1/workspaces", {"name": name}), 409, "exist")
    t.fails("without a name", lambda: master.rest("POST", "/api/v1/workspaces", {"name": ""}), 400, "name")
    t.call("get", lambda: master.rest("GET", f"/api/v1/workspaces/{made}"), show=workspace)
    t.fails("none", lambda: master.rest("GET", "/api/v1/workspaces/99999"), 404, "not found")
    t.call("list by name", lambda: master.rest("GET", "/api/v1/workspaces", name=name), show=lambda a: [w["name"] for w in a["workspaces"]])
    t.call("rename", lambda: master.rest("PATCH", f"/api/v1/workspaces/{made}", {"name": name + "2"}), show=workspace)
    projects = f"/api/v1/workspaces/{made}/projects"
    inner = t.call("a project", lambda: master.rest("POST", projects, {"name": "inner", "description": "said"}), show=project)["project"][
        "id"
    ]
    t.fails("the project again", lambda: master.rest("POST", projects, {"name": "inner"}), 409, "exist")
    t.call("list projects", lambda: master.rest("GET", projects), show=lambda a: [p["name"] for p in a["projects"]])
    t.call("get the project", lambda: master.rest("GET", f"/api/v1/projects/{inner}"), show=project)
    t.fails("no project", lambda: master.rest("GET", "/api/v1/projects/99999"), 404, "not found")
    t.call("patch the project", lambda: master.rest("PATCH", f"/api/v1/projects/{inner}", {"description": "new"}), show=project)
    config = {**BASE, "workspace": name + "2", "project": "inner"}
    experiment = master.create(config, activate=False)["experiment"]

    def where(answer):
        found = answer.get("experiment", answer)
        return [found["workspaceName"], found["projectName"]]

    t.call("an experiment in it", lambda: experiment, show=where)
    t.call("the project's count", lambda: master.rest("GET", f"/api/v1/projects/{inner}"), show=project)
    move = {"experimentId": experiment["id"], "destinationProjectId": 1}
    t.call("move the experiment", lambda: master.rest("POST", f"{API}/{experiment['id']}/move", move))
    t.call("it is there", lambda: master.rest("GET", f"{API}/{experiment['id']}"), show=where)
    nowhere = {"experimentId": experiment["id"], "destinationProjectId": 99999}
    t.fails("move it to nothing", lambda: master.rest("POST", f"{API}/{experiment['id']}/move", nowhere), 404, "not found")
    t.call("archive the workspace", lambda: master.rest("POST", f"/api/v1/workspaces/{made}/archive"))
    t.call("archived", lambda: master.rest("GET", f"/api/v1/workspaces/{made}"), show=workspace)
    t.call("unarchive the workspace", lambda: master.rest("POST", f"/api/v1/workspaces/{made}/unarchive"))
    t.call("delete the workspace", lambda: master.rest("DELETE", f"/api/v1/workspaces/{made}"), show=lambda a: "")
    master.rest("POST", f"{API}/{experiment['id']}/kill")


def test_templates(master, t):
    name, templates = master.name, "/api/v1/templates"

    def template(answer):
        found = answer["template"]
        return {"name": found["name"], "config": found["config"]}

    t.call("create", lambda: master.rest("POST", f"{templates}/{name}", {"name": name, "config": {"max_restarts": 2}}), show=template)
    t.fails("create again", lambda: master.rest("POST", f"{templates}/{name}", {"name": name, "config": {}}), (409, 500), "exist|duplicate")
    t.call("get", lambda: master.rest("GET", f"{templates}/{name}"), show=template)
    t.fails("none", lambda: master.rest("GET", f"{templates}/absent-{name}"), 404, "not found|unable to find")
    listed = t.call("list", lambda: master.rest("GET", templates, name=name), show=lambda a: [found["name"] for found in a["templates"]])
    assert listed
    t.call("used", lambda: master.create(BASE, template=name, activate=False), show=lambda a: a["config"]["max_restarts"])
    t.call("its setting loses", lambda: master.create({**BASE, "max_restarts": 4}, template=name, activate=False),
           show=lambda a: a["config"]["max_restarts"])  # fmt: skip
    t.fails("an absent one", lambda: master.create(BASE, template=f"absent-{name}"), (400, 404, 500), "absent")
    t.call("delete", lambda: master.rest("DELETE", f"{templates}/{name}"))
    t.fails("delete again", lambda: master.rest("DELETE", f"{templates}/{name}"), (404, 500), "not found|exist|unable to find")


def test_who_and_where(master, t):
    login = "/api/v1/auth/login"
    t.call("login", lambda: master.rest("POST", login, {"username": master.user, "password": master.password}),
           show=lambda a: [bool(a["token"]), a["user"]["username"], a["user"]["active"]])  # fmt: skip
    for title, given in (
        ("a wrong password", {"username": master.user, "password": "wrong"}), ("no such user", {"username": "nobody", "password": "x"}),
    ):  # fmt: skip
        t.fails(title, lambda given=given: master.rest("POST", login, given), 401, "invalid credentials")
    t.call("me", lambda: master.rest("GET", "/api/v1/me"), show=lambda a: [a["user"]["username"], a["user"]["active"]])
    t.call("info", lambda: master.rest("GET", "/info"), show=lambda a: a["version"])
    t.call("master", lambda: master.rest("GET", "/api/v1/master"), show=lambda a: [a["version"], bool(a["clusterId"])])
    kept = master.session.headers.pop("Authorization")
    t.fails("without a token", lambda: master.rest("GET", "/api/v1/me"), 401, "credentials|token|unauth")
    master.session.headers["Authorization"] = "Bearer " + "0" * 64
    t.fails("with a forged token", lambda: master.rest("GET", "/api/v1/me"), 401, "credentials|token|unauth")
    master.session.headers["Authorization"] = kept[:-4] + "AAAA"
    t.fails("with a token that was changed", lambda: master.rest("GET", "/api/v1/me"), 401, "credentials|token|unauth")
    master.session.headers["Authorization"] = kept
    token = master.rest("POST", login, {"username": master.user, "password": master.password})["token"]
    master.session.headers["Authorization"] = f"Bearer {token}"
    t.call("logout", lambda: master.rest("POST", "/api/v1/auth/logout"))
    t.fails("with a token after its logout", lambda: master.rest("GET", "/api/v1/me"), 401, "credentials|token|unauth")
    master.session.headers["Authorization"] = kept
    t.fails("a call that is none", lambda: master.rest("GET", "/api/v1/absent"), 501, "not")
    t.call("pools", lambda: master.rest("GET", "/api/v1/resource-pools"), show=lambda a: [pool["name"] for pool in a["resourcePools"]])
    t.call(
        "agents",
        lambda: master.rest("GET", "/api/v1/agents"),
        show=lambda a: [[len(agent["slots"]) > 0, agent["enabled"]] for agent in a["agents"]],
    )
    master.det("user", "whoami", means="logged in as user|determined")
    master.det("agent", "list", means="default")
    master.det("slot", "list", means="cpu")
    master.det("master", "info", means="0.38.1")
    master.det("user", "list", means="determined")
