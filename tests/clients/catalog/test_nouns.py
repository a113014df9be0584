"""The catalogue on running engines: every noun is listed, found by its name, paged and watched."""

import dataclasses
import json
import threading

import pytest
from determined.experimental import Determined

from conftest import wait_until
from pdk.catalog import Catalog, engines_of
from pdk.errors import NotFound, UserError

CODE = """
import determined as det

with det.core.init() as core_context:
    for length in (1, 2):
        core_context.train.report_training_metrics(length, {"loss": 1.0})
        core_context.train.report_validation_metrics(length, {"loss": 1 / length})
    with core_context.checkpoint.store_path({"steps_completed": 2}) as (path, _):
        (path / "weights").write_text("2")
"""
CONFIG = {
    "name": "nouns", "entrypoint": "python3 train.py", "hyperparameters": {"x": 1}, "max_restarts": 0,
    "searcher": {"name": "single", "metric": "loss"}, "environment": {"environment_variables": ["MY_TOKEN=hidden"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def catalog(up):
    return Catalog(engines_of(up.installation))


@pytest.fixture
def project(catalog, name, tmp_path):
    """A project with three commits of a repo, a pipeline with a job for each, and a second repo."""
    engine = catalog.engines.pachyderm
    engine.create_project(name, "for a test")
    for repo in ("data", "other"):
        engine.create_repo(name, repo)
    (tmp_path / "file").write_text("x")
    spec = {
        "pipeline": {"name": "p", "project": {"name": name}},
        "transform": {"image": "pdk/train:0.1", "cmd": ["sh", "-c", "echo seen; cp /pfs/data/* /pfs/out/"]},
        "input": {"pfs": {"repo": "data", "glob": "/*"}},
    }
    engine.create_pipeline(spec)
    for path in ("/a", "/b", "/c"):
        engine.put_files(name, "data", "master", {path: tmp_path / "file"})
    wait_until(lambda: [job.state for job in engine.jobs(name)][:3] == ["SUCCESS"] * 3, 60, "three jobs")
    return name


def everything(collection, limit):
    """All items, page by page; each is found again by its name."""
    found, page = [], collection.list(limit)
    while True:
        assert len(page.items) <= limit
        found += page.items
        if not page.after:
            break
        page = collection.list(limit, page.after)
    assert found == list(collection)
    for item in found:
        assert collection.name(collection.get(collection.name(item))) == collection.name(item)
        json.dumps(dataclasses.asdict(item), default=str)
        with pytest.raises(dataclasses.FrozenInstanceError):
            item.name = "x"
    return found


def test_data_and_pipelines(catalog, project):
    assert project in [one.name for one in everything(catalog.projects(), 5)]
    assert sorted(one.name for one in everything(catalog.repos(project), 2)) == ["data", "other", "p"]
    assert [one.name for one in everything(catalog.branches(project, "data"), 1)] == ["master"]
    commits = everything(catalog.commits(project, "data"), 2)
    assert [(one.origin, one.size, one.error) for one in commits[:3]] == [("user", 3, ""), ("user", 2, ""), ("user", 1, "")]
    assert [one.origin for one in commits[3:]] == ["auto"]  # the pipeline's
    assert commits[0].parent == commits[1].id
    assert catalog.commits(project, "data").get("master").id == commits[0].id
    newest = commits[0].id
    assert [one.path for one in everything(catalog.files(project, "data", "master"), 1)] == ["/a", "/b", "/c"]
    assert [(one.change, one.path) for one in everything(catalog.differences(project, "data", newest), 1)] == [("added", "/c")]
    assert len(list(catalog.differences(project, "data", newest, commits[2].id))) == 2
    (pipeline,) = everything(catalog.pipelines(project), 1)
    assert (pipeline.name, pipeline.state, pipeline.spec["transform"]["cmd"][0]) == ("p", "running", "sh")
    assert catalog.pipelines(project).get("p") == pipeline
    jobs = everything(catalog.jobs(project, "p"), 2)
    assert [job.id for job in jobs[:3]] == [one.id for one in commits[:3]]
    assert catalog.jobs(project).get("p") == jobs[0]
    assert dict(jobs[0].datums) == {"processed": 1, "skipped": 2, "total": 3, "failed": 0}
    datums = everything(catalog.datums(project, "p", newest), 2)
    assert sorted(one.files for one in datums) == [("data:/a",), ("data:/b",), ("data:/c",)]
    assert list(catalog.runs(project)) == []
    with pytest.raises(NotFound, match="no run"):
        catalog.runs(project).get(newest)
    with pytest.raises(NotFound):
        catalog.commits(project, "data").get("0" * 32)


def test_jobs_of_earlier_versions_of_a_pipeline_are_listed_too(catalog, project):
    """An engine lists those of the newest one unless it is asked for more; what was green before an update would not be found."""
    before = [job.id for job in catalog.jobs(project, "p").list(100).items]
    spec = {
        **catalog.pipelines(project).get("p").spec,
        "pipeline": {"name": "p", "project": {"name": project}},
        "description": "another version",
    }
    catalog.engines.pachyderm.create_pipeline(spec, update=True)
    assert {*before} <= {job.id for job in catalog.jobs(project, "p").list(100).items}


def test_what_changes_is_seen(catalog, project, tmp_path):
    stop, seen = threading.Event(), []

    def watch():
        for event in catalog.commits(project, "data").watch(stop, 0.05):
            seen.append((event.kind, event.item.id))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        wait_until(lambda: len(seen) == 4, 10, "what is there")
        new = catalog.engines.pachyderm.put_files(project, "data", "master", {"/d": tmp_path / "file"})
        wait_until(lambda: ("added", new) in seen, 5, "the new commit")
    finally:
        stop.set()
        watching.join()


@pytest.fixture(scope="module")
def experiments(up, tmp_path_factory):
    """Numbers of three experiments, the first with a trial that ended."""
    code = tmp_path_factory.mktemp("code")
    (code / "train.py").write_text(CODE)
    installation = up.installation
    sdk = Determined(master=f"http://127.0.0.1:{installation.ports.determined}", user="determined", password=installation.secret())
    first = sdk.create_experiment(CONFIG, str(code))
    first.wait(interval=0.2)
    others = [sdk.create_experiment({**CONFIG, "name": name}, str(code)) for name in ("second", "third")]
    for one in others:
        one.kill()
    model = sdk.create_model("nouns")
    (checkpoint,) = first.list_checkpoints()
    model.register_version(checkpoint.uuid)
    return [one.id for one in (first, *others)]


def test_training(catalog, experiments):
    listed = everything(catalog.experiments(), 2)
    assert [one.id for one in listed if one.id in experiments] == experiments[::-1]
    found = catalog.experiments().get(str(experiments[0]))
    assert (found.name, found.state, found.progress) == ("nouns", "COMPLETED", 1.0)
    assert found.config["hyperparameters"] == {"x": {"type": "const", "val": 1}}
    assert "MY_TOKEN" in str(found.config)
    assert "hidden" not in str(found.config)
    with pytest.raises(NotFound, match="experiments have numbers"):
        catalog.experiments().get("nouns")
    (trial,) = everything(catalog.trials(experiments[0]), 1)
    assert (trial.state, dict(trial.hparams)) == ("COMPLETED", {"x": 1})
    assert [dict(one.values) for one in everything(catalog.metrics(trial.id), 1)] == [{"loss": 1.0}, {"loss": 0.5}]
    assert [one.batches for one in catalog.metrics(trial.id, "training")] == [1, 2]
    (checkpoint,) = everything(catalog.checkpoints(experiments[0]), 1)
    assert (checkpoint.trial, checkpoint.batches, dict(checkpoint.metrics)) == (trial.id, 2, {"loss": 0.5})
    assert catalog.models().get("nouns").versions == 1
    assert "nouns" in [one.name for one in everything(catalog.models(), 1)]
    (version,) = everything(catalog.versions("nouns"), 1)
    assert (version.checkpoint, version.number, version.provenance.data) == (checkpoint.uuid, 1, None)
    with pytest.raises(NotFound, match="absent"):
        list(catalog.versions("absent"))


def test_services(catalog, up, name, tmp_path):
    from clients.kserve.services import Services

    service = Services(up, name, tmp_path)
    service.apply(service.model(1), notes={"pdk/model-version": "v1"})
    service.ready()
    found = wait_until(lambda: (one := catalog.services().get(f"models/{name}")).phase == "ready" and one, 30, "ready")
    assert (found.version, found.storage, found.canary, found.message) == ("v1", service.model(1), None, "")
    service.apply(service.model(2), canaryTrafficPercent=30, notes={"pdk/model-version": "v2"})
    service.ready()
    shares = wait_until(lambda: (all_ := everything(catalog.revisions("models", name), 1)) and len(all_) == 2 and all_, 30, "two revisions")
    assert sorted((one.percent, one.newest) for one in shares) == [(30, True), (70, False)]
    assert [one.name for one in catalog.services("models") if one.name == name] == [name]
    service.ask()
    wait_until(lambda: [one.version for one in catalog.requests() if one.model == "m" and one.code == 200], 20, "the request")
    service.apply(service.model(3, "raise SystemExit('no such thing')"))
    failed = wait_until(lambda: (one := catalog.services().get(f"models/{name}")).phase == "failed" and one, 60, "its failure")
    assert "no such thing" in failed.message
    assert failed.previous == ""  # PDK's own rollouts remember it, and this was none
    service.delete()
    with pytest.raises(NotFound, match=f"models/{name}"):
        catalog.services().get(f"models/{name}")
    with pytest.raises(UserError, match="NAMESPACE/NAME"):
        catalog.services().get(name)


def test_an_engine_that_is_away_keeps_nobody_from_the_others(catalog, project):
    def away():
        raise UserError("away on purpose")

    alone = Catalog(type(catalog.engines)(lambda: catalog.engines.pachyderm, away, away, lambda: ()))
    assert [one.name for one in alone.repos(project)]
    with pytest.raises(UserError, match="on purpose"):
        list(alone.models())
