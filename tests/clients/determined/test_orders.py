"""Listings come in the order that was asked for: what is downloaded as the best is the best."""

import uuid

import pytest
import requests
import yaml
from determined.experimental import Determined, ModelSortBy
from determined.experimental.client import CheckpointSortBy, ExperimentSortBy, OrderBy, TrialSortBy

from conftest import Alone

# by trial: steps → loss and accuracy, of which only the second is the searcher's
REPORTS = {
    "a": {1: (9.0, 0.20), 2: (5.0, 0.70), 3: (1.0, 0.60)},
    "b": {1: (8.0, 0.95), 2: (7.0, 0.30), 3: (6.0, 0.10)},
    "c": {1: (2.0, 0.40), 2: (3.0, 0.50), 3: (4.0, None)},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    alone = Alone(tmp_path_factory.mktemp("orders") / "state", only="determined").start()
    yield alone
    alone.stop()


@pytest.fixture(scope="module")
def sdk(server):
    base = f"http://127.0.0.1:{server.installation.ports.determined}"
    return Determined(master=base, user="determined", password=server.installation.secret())


@pytest.fixture(scope="module", params=[False, True], ids=["larger is better", "smaller is better"])
def reported(request, server, sdk):
    """An experiment whose three trials reported, and what its checkpoints are called: a1 to c3."""
    session = requests.Session()
    session.headers["authorization"] = f"Bearer {sdk._session.token}"
    base = f"http://127.0.0.1:{server.installation.ports.determined}/api/v1"
    searcher = {"name": "random", "metric": "accuracy", "smaller_is_better": request.param, "max_trials": 3}
    config = {
        "name": "orders",
        "entrypoint": "true",
        "searcher": searcher,
        "hyperparameters": {"x": {"type": "double", "minval": 0, "maxval": 1}},
    }
    file = {"path": "a", "type": 48, "content": ""}
    made = session.post(f"{base}/experiments", json={"config": yaml.safe_dump(config), "modelDefinition": [file], "activate": False}).json()
    experiment, names = sdk.get_experiment(made["experiment"]["id"]), {}
    for trial, (letter, reports) in zip(experiment.list_trials(), REPORTS.items(), strict=True):
        task = session.get(f"{base}/trials/{trial.id}").json()["trial"]["taskId"]
        for steps, (loss, accuracy) in reports.items():
            values = {"loss": loss, **({"accuracy": accuracy} if accuracy is not None else {})}
            report = {"trialId": trial.id, "stepsCompleted": steps, "metrics": {"avgMetrics": values}}
            assert session.post(f"{base}/trials/{trial.id}/metrics", json={"metrics": report, "group": "validation"}).status_code == 200
            names[id_ := str(uuid.uuid4())] = f"{letter}{steps}"
            body = {"uuid": id_, "taskId": task, "metadata": {"steps_completed": steps}, "resources": {"weights": 100 - steps}}
            assert session.post(f"{base}/checkpoints", json=body).status_code == 200
    return experiment, names, request.param


def test_checkpoints_of_an_experiment(reported):
    experiment, names, smaller = reported

    def listed(**more):
        return " ".join(names[one.uuid] for one in experiment.list_checkpoints(**more))

    assert listed(sort_by="loss", order_by=OrderBy.ASC) == "a3 c1 c2 c3 a2 b3 b2 b1 a1"
    assert listed(sort_by="loss", order_by=OrderBy.DESC) == "a1 b1 b2 b3 a2 c3 c2 c1 a3"
    upwards, downwards = "b3 a1 b2 c1 c2 a3 a2 b1 c3", "b1 a2 a3 c2 c1 b2 a1 b3 c3"  # one without the metric is last
    assert listed(sort_by="accuracy", order_by=OrderBy.ASC) == upwards
    assert listed(sort_by=CheckpointSortBy.SEARCHER_METRIC, order_by=OrderBy.ASC) == upwards
    assert listed(sort_by=CheckpointSortBy.SEARCHER_METRIC, order_by=OrderBy.DESC) == downwards
    assert listed() == (upwards if smaller else downwards)  # best first
    assert listed(sort_by="loss", order_by=OrderBy.ASC, max_results=2) == "a3 c1"
    assert listed(sort_by=CheckpointSortBy.BATCH_NUMBER, order_by=OrderBy.DESC)[:8] == "a3 b3 c3"
    uuids = [one.uuid for one in experiment.list_checkpoints(sort_by=CheckpointSortBy.UUID, order_by=OrderBy.ASC)]
    assert uuids == sorted(names)


def test_checkpoints_of_a_trial(reported, sdk):
    """The engine has no "best first" here: its client takes the last one where larger is better."""
    experiment, names, _ = reported
    trial = experiment.list_trials()[0]
    listed = [names[one.uuid] for one in trial.list_checkpoints(sort_by=CheckpointSortBy.SEARCHER_METRIC, order_by=OrderBy.ASC)]
    assert listed == ["a1", "a3", "a2"]
    assert [names[one.uuid] for one in trial.list_checkpoints(sort_by="loss", order_by=OrderBy.DESC)] == ["a1", "a2", "a3"]
    answer = sdk._session.get(f"api/v1/trials/{trial.id}/checkpoints", params={"sortByAttr": "SORT_BY_SEARCHER_METRIC"}).json()
    assert [names[one["uuid"]] for one in answer["checkpoints"]] == ["a1", "a3", "a2"]


def test_trials(reported):
    experiment, _, smaller = reported
    by_number = experiment.list_trials()

    def listed(key, order):
        return "".join("abc"[[one.id for one in by_number].index(trial.id)] for trial in experiment.list_trials(key, order))

    assert listed(TrialSortBy.ID, OrderBy.DESC) == "cba"
    best = listed(TrialSortBy.BEST_VALIDATION_METRIC, OrderBy.ASC)
    assert best == "bac"  # whichever way better is: 0.1 0.2 0.4, or 0.95 0.7 0.5
    latest = listed(TrialSortBy.LATEST_VALIDATION_METRIC, OrderBy.ASC)
    assert latest == ("bac" if smaller else "abc")  # the last of c has none
    assert listed(TrialSortBy.BATCHES_PROCESSED, OrderBy.ASC) == "abc"


def test_experiments_and_models(reported, sdk):
    for name in ("zebra", "ape"):
        if name not in [model.name for model in sdk.list_models()]:
            sdk.create_model(name, description=f"{len(name)} letters")
    assert [one.name for one in sdk.list_models(sort_by=ModelSortBy.NAME, order_by=OrderBy.ASC)] == ["ape", "zebra"]
    assert [one.name for one in sdk.list_models(sort_by=ModelSortBy.NAME, order_by=OrderBy.DESC)] == ["zebra", "ape"]
    assert [one.name for one in sdk.list_models(sort_by=ModelSortBy.CREATION_TIME, order_by=OrderBy.ASC)] == ["zebra", "ape"]
    for key in (ExperimentSortBy.ID, ExperimentSortBy.START_TIME):
        ids = [one.id for one in sdk.list_experiments(sort_by=key, order_by=OrderBy.ASC)]
        assert ids == sorted(ids), key
    newest = [one.id for one in sdk.list_experiments(sort_by=ExperimentSortBy.ID, order_by=OrderBy.DESC)]
    assert newest == sorted(newest, reverse=True)


def test_an_order_that_is_not_offered_is_refused(sdk, reported):
    experiment = reported[0]
    path = f"api/v1/experiments/{experiment.id}/trials"
    with pytest.raises(Exception, match="SORT_BY_LOG_RETENTION_DAYS is not offered; these are: SORT_BY_ID"):
        sdk._session.get(path, params={"sortBy": "SORT_BY_LOG_RETENTION_DAYS"})
