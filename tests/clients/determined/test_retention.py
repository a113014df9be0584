"""Which checkpoints stay when an experiment has ended, and what `det` can change afterwards."""

import json

import pytest

from clients.determined.test_searches import create, ended, trials  # noqa: F401 - fixtures

CODE = """
import determined as det

with det.core.init() as core_context:
    for length, loss in enumerate([3.0, 1.0, 2.0, 4.0], 1):
        core_context.train.report_validation_metrics(length, {"loss": loss + det.get_cluster_info().trial.hparams["x"]})
        with core_context.checkpoint.store_path({"steps_completed": length}) as (path, _):
            (path / "length").write_text(str(length))
"""


@pytest.fixture
def run(up, det, create, tmp_path):  # noqa: F811
    """Run two trials that save four checkpoints each; the experiment's number."""
    (tmp_path / "code" / "train.py").write_text(CODE)

    def run(**storage):
        searcher = {"name": "random", "max_trials": 2}
        experiment = create(searcher, checkpoint_storage=storage)
        assert ended(up, det, experiment)["state"] == "STATE_COMPLETED"
        return experiment

    return run


def kept(up, sdk, experiment):
    """Steps of the checkpoints that are left, by trial; their files agree."""
    folder, found = up.installation.folder("determined") / "checkpoints", []
    for trial in trials(sdk, experiment):
        left = [point for point in trial.list_checkpoints() if point.state.name == "COMPLETED"]
        assert all((folder / point.uuid / "length").exists() for point in left)
        assert not any((folder / point.uuid).exists() for point in trial.list_checkpoints() if point.state.name == "DELETED")
        found.append(sorted(point.metadata["steps_completed"] for point in left))
    return found


def test_the_best_and_the_latest_stay(up, det, sdk, run):
    assert kept(up, sdk, run()) == [[2, 4], [2, 4]]
    assert kept(up, sdk, run(save_trial_best=2, save_trial_latest=0)) == [[2, 3], [2, 3]]
    best = kept(up, sdk, run(save_experiment_best=3, save_trial_best=0, save_trial_latest=0))
    assert sorted(map(len, best)) in ([1, 2], [0, 3])
    assert kept(up, sdk, run(save_trial_best=9)) == [[1, 2, 3, 4], [1, 2, 3, 4]]


def test_a_registered_checkpoint_stays(up, det, sdk, run, name):
    experiment = run(save_trial_best=9)
    first = next(point for point in trials(sdk, experiment)[0].list_checkpoints() if point.metadata["steps_completed"] == 1)
    sdk.create_model(name).register_version(first.uuid)
    policy = ("--save-experiment-best", "0", "--save-trial-best", "1", "--save-trial-latest", "0")
    up.run(det, "experiment", "set", "gc-policy", "--yes", *policy, experiment)
    assert kept(up, sdk, experiment) == [[1, 2], [2]]
    assert "model registry" in up.fails(det, "checkpoint", "delete", "--yes", first.uuid)
    second = next(point for point in trials(sdk, experiment)[1].list_checkpoints() if point.state.name == "COMPLETED")
    up.run(det, "checkpoint", "rm", "--yes", second.uuid)  # without a glob it removes nothing
    assert kept(up, sdk, experiment) == [[1, 2], [2]]
    up.run(det, "checkpoint", "delete", "--yes", second.uuid)
    assert kept(up, sdk, experiment) == [[1, 2], []]


def test_an_experiment_is_moved_and_scheduled_otherwise(up, det, sdk, run, name):
    experiment = run()
    up.run(det, "workspace", "create", name)
    up.run(det, "project", "create", name, "other")
    up.run(det, "experiment", "move", experiment, name, "other")
    up.run(det, "experiment", "set", "priority", experiment, "7")
    up.run(det, "experiment", "set", "max-slots", experiment, "1")
    found = json.loads(up.run(det, "experiment", "describe", experiment, "--json"))[0]["experiment"]
    assert (found["workspaceName"], found["projectName"]) == (name, "other")
    assert found["config"]["resources"]["priority"] == 7
    assert found["config"]["resources"]["max_slots"] == 1
    assert "resources.priority" in up.fails(det, "experiment", "set", "priority", experiment, "100")
