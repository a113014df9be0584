"""Searches of several trials, by `det` and the SDK: which trials are made, which are stopped, how the experiment ends."""

import json
import re

import pytest
import yaml

from conftest import wait_until

CODE = """
import select
import determined as det

def main(core_context, hparams):
    for length in range(1, hparams.get("length", 9) + 1):
        select.select([], [], [], hparams.get("pause", 0))
        core_context.train.report_training_metrics(length, {"loss": 1.0})
        if hparams.get("fails"):
            raise ValueError("this one fails")
        if hparams.get("bad"):
            raise det.InvalidHP("no such thing")
        core_context.train.report_validation_metrics(length, {"loss": hparams["x"] + 1 / length, "batches": length})
        core_context.train.report_progress(length / 9)
        if core_context.preempt.should_preempt():
            with core_context.checkpoint.store_path({"steps_completed": length}) as (path, _):
                (path / "length").write_text(str(length))
            return

info = det.get_cluster_info()
with det.core.init() as core_context:
    print("slots", info.slot_ids)
    main(core_context, info.trial.hparams)
"""
SPACE = {"x": {"type": "double", "minval": 0, "maxval": 1}}
CONFIG = {
    "name": "search", "entrypoint": "python3 train.py", "hyperparameters": SPACE, "max_restarts": 0,
    "reproducibility": {"experiment_seed": 7},
}  # fmt: skip


@pytest.fixture
def create(up, det, tmp_path):
    """Create an experiment with `det`; returns its number."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(CODE)

    def run(searcher, **changes):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "searcher": {"metric": "loss", **searcher}, **changes}))
        output = up.run(det, "experiment", "create", str(tmp_path / "config.yaml"), str(code))
        return re.search(r"Created experiment (\d+)", output)[1]

    return run


def trials(sdk, experiment):
    return sorted(sdk.get_experiment(int(experiment)).list_trials(), key=lambda trial: trial.id)


def ended(up, det, experiment):
    up.run(det, "experiment", "wait", experiment, "--polling-interval", "1", check=False)
    return json.loads(up.run(det, "experiment", "describe", experiment, "--json"))[0]["experiment"]


def test_random_search_runs_its_trials_side_by_side(up, det, create, sdk):
    experiment = create({"name": "random", "max_trials": 4, "max_concurrent_trials": 2})
    found = ended(up, det, experiment)
    assert found["state"] == "STATE_COMPLETED"
    made = trials(sdk, experiment)
    assert len({trial.hparams["x"] for trial in made}) == 4
    assert made[0].hparams["x"] == 0.07630828937395717  # numpy's first number for this seed: the trials of a cluster
    assert {trial.state.name for trial in made} == {"COMPLETED"}


def test_a_grid_has_a_trial_for_each_point(up, det, create, sdk):
    space = {"x": {"type": "double", "minval": 0, "maxval": 1, "count": 2}, "kind": {"type": "categorical", "vals": ["a", "b"]}}
    experiment = create({"name": "grid"}, hyperparameters={**space, "length": 1})
    assert ended(up, det, experiment)["state"] == "STATE_COMPLETED"
    found = {(trial.hparams["x"], trial.hparams["kind"]) for trial in trials(sdk, experiment)}
    assert found == {(0.0, "a"), (0.0, "b"), (1.0, "a"), (1.0, "b")}


def test_asha_stops_what_is_not_good_enough(up, det, create, sdk):
    searcher = {
        "name": "adaptive_asha", "mode": "aggressive", "max_trials": 6, "max_time": 9, "time_metric": "batches", "divisor": 3,
        "max_rungs": 3, "max_concurrent_trials": 2,
    }  # fmt: skip
    experiment = create(searcher, hyperparameters={**SPACE, "length": 9, "pause": 0.2})
    assert ended(up, det, experiment)["state"] == "STATE_COMPLETED"
    made = trials(sdk, experiment)
    assert len(made) == 6
    assert {trial.state.name for trial in made} == {"COMPLETED"}
    lengths = {trial.hparams["x"]: max(row.steps_completed for row in trial.iter_metrics("validation")) for trial in made}
    best = min(lengths)
    assert lengths[best] == max(lengths.values())
    assert min(lengths.values()) < 9
    stopped = next(trial for trial in made if lengths[trial.hparams["x"]] < 9)
    assert stopped.list_checkpoints()  # it was told, and saved itself


def test_an_older_config_says_what_was_made_of_it(up, det, create, sdk):
    searcher = {"name": "adaptive_asha", "max_trials": 2, "max_length": {"batches": 4}, "max_rungs": 1, "stop_once": True}
    experiment = create(searcher)
    assert ended(up, det, experiment)["state"] == "STATE_COMPLETED"
    log = up.run(det, "trial", "logs", str(trials(sdk, experiment)[0].id))
    assert "max_length was read as max_time: 4, time_metric: batches" in log
    assert "stop_once was left out" in log


def test_trials_fail_and_are_replaced_as_the_searcher_says(up, det, create, sdk):
    kinds = {"type": "categorical", "vals": [True, False]}
    experiment = create({"name": "random", "max_trials": 4}, hyperparameters={**SPACE, "fails": kinds, "length": 1})
    found = ended(up, det, experiment)
    states = [(trial.hparams["fails"], trial.state.name) for trial in trials(sdk, experiment)]
    assert set(states) <= {(True, "ERROR"), (False, "COMPLETED")}
    assert len(states) == 4
    assert found["state"] == ("STATE_ERROR" if all(fails for fails, _ in states) else "STATE_COMPLETED")
    experiment = create({"name": "random", "max_trials": 2}, hyperparameters={**SPACE, "fails": True})
    assert ended(up, det, experiment)["state"] == "STATE_ERROR"
    bad = {"type": "categorical", "vals": [True, False]}
    experiment = create({"name": "random", "max_trials": 3}, hyperparameters={**SPACE, "bad": bad, "length": 1})
    assert ended(up, det, experiment)["state"] == "STATE_COMPLETED"
    assert sum(not trial.hparams["bad"] for trial in trials(sdk, experiment)) == 3  # invalid ones do not count


def test_a_search_without_its_metric_fails_and_says_so(up, det, create, sdk):
    searcher = {"name": "async_halving", "num_rungs": 2, "max_trials": 3, "max_time": 9, "time_metric": "epochs"}
    experiment = create(searcher)
    assert ended(up, det, experiment)["state"] == "STATE_ERROR"


def test_a_search_is_paused_goes_on_and_is_killed(up, det, create, sdk):
    experiment = create({"name": "random", "max_trials": 3}, hyperparameters={**SPACE, "length": 500, "pause": 0.2})
    running = lambda: [trial for trial in trials(sdk, experiment) if list(trial.iter_metrics("validation"))]  # noqa: E731
    wait_until(lambda: len(running()) == 2, 60)
    up.run(det, "experiment", "pause", experiment)
    wait_until(lambda: all(trial.list_checkpoints() for trial in running()), 60)
    up.run(det, "experiment", "activate", experiment)
    first = trials(sdk, experiment)[0]
    up.run(det, "trial", "kill", str(first.id))
    wait_until(lambda: sdk.get_trial(first.id).state.name == "CANCELED", 30)
    wait_until(lambda: len(running()) == 3, 60)  # its slot is another one's
    assert ended_soon(up, det, experiment) == "STATE_CANCELED"


def ended_soon(up, det, experiment):
    up.run(det, "experiment", "kill", experiment)
    return ended(up, det, experiment)["state"]


REFUSED = (
    ({"name": "random"}, {}, "searcher.max_trials"),
    ({"name": "hyperband", "max_trials": 3}, {}, "'hyperband' is none of"),
    ({"name": "adaptive_asha", "max_trials": 3}, {}, "searcher.max_time"),
    ({"name": "single"}, {"hyperparameters": {"x": {"type": "int", "minval": 3}}}, "hyperparameters.x: maxval"),
    ({"name": "single"}, {"resources": {"slots_per_trial": 4096}}, "4096 slots are asked for, this machine offers"),
    ({"name": "single"}, {"resources": {"priority": 100}}, "resources.priority"),
    ({"name": "single"}, {"resources": {"max_slots": 0}}, "resources.max_slots"),
)


@pytest.mark.parametrize(("searcher", "changes", "why"), REFUSED)
def test_searches_that_are_refused(up, det, create, tmp_path, searcher, changes, why):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "searcher": {"metric": "loss", **searcher}, **changes}))
    assert why in up.fails(det, "experiment", "create", str(tmp_path / "config.yaml"), str(tmp_path / "code"))
