"""Experiment configs: what they are completed with, and what is refused."""

import pytest

BASE = {"name": "any", "entrypoint": "python3 train.py", "searcher": {"name": "single", "metric": "loss"}}
# of the machine and of the installation, not of the config
OWN = ("checkpoint_storage", "environment", "log_policies", "reproducibility")
REFUSED = (400, 500)  # the engine calls an invalid config an internal error
# what the local server reads and has no use for
UNUSED = ("slurm", "pbs", "integrations")


def completed(answer):
    """The config without what each installation has of its own."""
    config = answer["config"]
    config["resources"].pop("resource_pool")  # the engine's own default, noted elsewhere
    config["labels"] = sorted(config["labels"])  # the engine keeps a set
    return {key: value for key, value in config.items() if key not in OWN + UNUSED}


def check(master, config):
    """A paused experiment; for what is refused a validation is enough."""
    return master.create(config, activate=False)


def test_what_a_config_is_completed_with(master, t):
    t.call("a small config", lambda: check(master, BASE), show=completed)
    full = {
        **BASE, "description": "said", "labels": ["b", "a"], "max_restarts": 0, "data": {"deep": {"er": [1, 2]}}, "debug": True,
        "min_checkpoint_period": {"epochs": 3}, "min_validation_period": {"records": 100}, "perform_initial_validation": True,
        "records_per_epoch": 50, "scheduling_unit": 7, "checkpoint_policy": "all", "preemption_timeout": 60,
        "optimizations": {"aggregation_frequency": 2, "average_training_metrics": False},
        "profiling": {"enabled": True, "end_after_batch": 10}, "resources": {"priority": 7, "weight": 2, "max_slots": 2},
        "bind_mounts": [{"host_path": "/tmp", "container_path": "data", "read_only": True}],
    }  # fmt: skip
    t.call("a config with everything", lambda: check(master, full), show=completed)
    t.call("null means unset", lambda: check(master, {**BASE, "description": None, "labels": None, "resources": None}), show=completed)
    t.call("an entrypoint as a list", lambda: check(master, {**BASE, "entrypoint": ["python3", "train.py"]}), show=completed)


def test_hyperparameters(master, t):
    hyperparameters = {
        "plain": 3, "text": "a", "flag": True, "nothing": None, "list": [1, "b"],
        "const": {"type": "const", "val": 4}, "int": {"type": "int", "minval": 1, "maxval": 9},
        "double": {"type": "double", "minval": 0.1, "maxval": 2, "count": 3},
        "log": {"type": "log", "minval": -4, "maxval": -1, "base": 10},
        "categorical": {"type": "categorical", "vals": ["a", 1, True]}, "nested": {"deep": {"type": "int", "minval": 0, "maxval": 1}},
    }  # fmt: skip
    config = {**BASE, "hyperparameters": hyperparameters, "searcher": {"name": "random", "metric": "loss", "max_trials": 2}}
    t.call("every kind", lambda: check(master, config), show=completed)
    for title, value, means in (
        ("an unknown kind", {"type": "gaussian"}, "gaussian|type"),
        ("an int without maxval", {"type": "int", "minval": 1}, "maxval"),
        ("a text for a number", {"type": "double", "minval": "a", "maxval": 2}, "minval"),
        ("an unknown field", {"type": "int", "minval": 1, "maxval": 2, "step": 1}, "step"),
    ):
        t.fails(title, lambda value=value: check(master, {**config, "hyperparameters": {"x": value}}), REFUSED, means)
    empty = {**config, "hyperparameters": {"x": {"type": "categorical", "vals": []}}}
    t.fails("no values", lambda: check(master, empty), 400, "vals", differs="the engine fails with an index out of range")


SEARCHERS = (
    {"name": "random", "max_trials": 4},
    {"name": "grid"},
    {"name": "async_halving", "max_trials": 4, "num_rungs": 3, "max_time": 100, "time_metric": "batches"},
    {"name": "adaptive_asha", "max_trials": 4, "max_time": 100, "time_metric": "batches"},
    {
        "name": "adaptive_asha", "max_trials": 4, "max_time": 100, "time_metric": "batches", "mode": "aggressive", "divisor": 3,
        "max_rungs": 4, "bracket_rungs": [2], "max_concurrent_trials": 2,
    },
)  # fmt: skip


def test_searchers(master, t):
    grid = {"x": {"type": "int", "minval": 1, "maxval": 4, "count": 2}}
    for searcher in SEARCHERS:
        config = {**BASE, "hyperparameters": grid, "searcher": {**searcher, "metric": "loss", "smaller_is_better": False}}
        t.call(f"{searcher['name']} of {len(searcher)} fields", lambda config=config: check(master, config), show=completed)
    for title, searcher, means in (
        ("no metric", {"name": "single"}, "metric"),
        ("no name", {"metric": "loss"}, "name"),
        ("an unknown name", {"name": "bayes", "metric": "loss"}, "name|bayes"),
        ("an unknown field", {"name": "single", "metric": "loss", "patience": 3}, "patience"),
        ("random without max_trials", {"name": "random", "metric": "loss"}, "max_trials"),
        ("no trials", {"name": "random", "metric": "loss", "max_trials": 0}, "max_trials"),
        ("trials as a text", {"name": "random", "metric": "loss", "max_trials": "many"}, "max_trials"),
        ("a metric that is a number", {"name": "single", "metric": 3}, "metric"),
        ("asha without max_time", {"name": "adaptive_asha", "metric": "loss", "max_trials": 3, "time_metric": "batches"}, "max_time"),
        ("an unknown mode", {**SEARCHERS[3], "metric": "loss", "mode": "wild"}, "mode"),
        ("a divisor of one", {**SEARCHERS[3], "metric": "loss", "divisor": 1}, "divisor"),
        ("a checkpoint that is none", {"name": "single", "metric": "loss", "source_checkpoint_uuid": 3}, "source_checkpoint_uuid"),
    ):
        config = {**BASE, "searcher": searcher}
        t.fails(title, lambda config=config: check(master, config), REFUSED, means)


@pytest.mark.parametrize("length", [{"max_length": {"batches": 10}}, {"max_length": 10}, {"max_length": {"epochs": 2}, "max_trials": 4}])
def test_older_searchers(master, t, length):
    name, plain = "random" if "max_trials" in length else "single", length["max_length"] == 10
    config = {**BASE, "searcher": {"name": name, "metric": "loss", **length}}
    t.call("max_length", lambda: check(master, config), show=completed, differs="a plain number is written as batches" if plain else "")


def test_what_is_refused(master, t):
    for title, change, means in (
        ("an unknown field", {"colour": "red"}, "colour"),
        ("no entrypoint", {"entrypoint": None}, "entrypoint"),
        ("an entrypoint that is a number", {"entrypoint": 3}, "entrypoint"),
        ("no searcher", {"searcher": None}, "searcher"),
        ("a searcher that is a text", {"searcher": "single"}, "searcher"),
        ("restarts below zero", {"max_restarts": -1}, "max_restarts"),
        ("restarts as a text", {"max_restarts": "3"}, "max_restarts"),
        ("a label that is no text", {"labels": [{"a": 1}]}, "label"),
        ("slots as a text", {"resources": {"slots_per_trial": "two"}}, "slots_per_trial"),
        ("slots below zero", {"resources": {"slots_per_trial": -1}}, "slots_per_trial"),
        ("an unknown resource", {"resources": {"gpus": 2}}, "gpus"),
        ("a priority out of range", {"resources": {"priority": 0}}, "priority"),
        ("an unknown period", {"min_validation_period": {"hours": 1}}, "min_validation_period|hours"),
        ("a policy that is none", {"checkpoint_policy": "some"}, "checkpoint_policy"),
        ("an unknown optimization", {"optimizations": {"speed": 9}}, "speed"),
        ("a level of precision that is none", {"optimizations": {"mixed_precision": "O9"}}, "mixed_precision"),
        ("profiling as a flag", {"profiling": True}, "profiling"),
        ("an unknown field of profiling", {"profiling": {"often": True}}, "often"),
        ("a seed that is a text", {"reproducibility": {"experiment_seed": "x"}}, "experiment_seed"),
        ("a storage that is none", {"checkpoint_storage": {"type": "tape"}}, "checkpoint_storage|tape"),
        ("an s3 storage without bucket", {"checkpoint_storage": {"type": "s3"}}, "bucket"),
        ("saves below zero", {"checkpoint_storage": {"save_trial_best": -1}}, "save_trial_best"),
        ("mounts without a target", {"bind_mounts": [{"host_path": "/tmp"}]}, "container_path"),
        ("variables that are a number", {"environment": {"environment_variables": 3}}, "environment"),
        ("an unknown field of environment", {"environment": {"colour": 3}}, "colour"),
        ("hyperparameters that are a list", {"hyperparameters": [1]}, "hyperparameters"),
        ("data that is a list", {"data": [1]}, "data"),
        ("a name that is a number", {"name": 3}, "name"),
        ("debug that is a text", {"debug": "yes"}, "debug"),
    ):  # fmt: skip
        t.fails(title, lambda change=change: check(master, {**BASE, **change}), REFUSED, means)
    weight = {**BASE, "resources": {"weight": -1}}
    t.fails("a weight below zero", lambda: check(master, weight), 400, "weight", differs="the engine accepts it")
    t.fails("no YAML", lambda: check(master, "a: [b"), REFUSED, "yaml|config")
    t.fails("a text", lambda: check(master, "hello"), REFUSED, "config")
    t.fails("too many slots", lambda: check(master, {**BASE, "resources": {"slots_per_trial": 1000}}), REFUSED, "slots")
    t.fails("an absent project", lambda: check(master, {**BASE, "workspace": "Uncategorized", "project": "absent"}), 404, "absent")
    t.fails("an absent workspace", lambda: check(master, {**BASE, "workspace": "absent", "project": "absent"}), 404, "absent")
