"""Trials that are forked from a warm process are those that a fresh process would have been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from clients.determined.test_determined import CONFIG, MODEL

FRESH = {"environment": {"environment_variables": ["PYTHONDONTWRITEBYTECODE=1"]}}  # read at start, so it needs a process of its own


def zygotes(up):
    """PIDs of the warm processes of an installation's Determined server."""
    children = [child for pid in up.processes() for child in psutil.Process(pid).children()]
    return {child.pid for child in children if "pdk.local.determined.runtime.zygote" in child.cmdline()}


@pytest.fixture
def run(sdk, tmp_path):
    """Run the small experiment; its trial."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "model_def.py").write_text(f"{MODEL}\nprint(torch.get_num_threads(), 'threads')\n")

    def run(ends="COMPLETED", **changes):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "reproducibility": {"experiment_seed": 3}, **changes}))
        experiment = sdk.create_experiment(str(tmp_path / "config.yaml"), str(code))
        assert experiment.wait(interval=0.1).name == ends
        return experiment.list_trials()[0]

    return run


def weights(trial, folder):
    state = torch.load(Path(trial.list_checkpoints()[0].download(str(folder))) / "state_dict.pth", weights_only=True)
    return state["models_state_dict"][0]


def measured(trial):
    keys = ("validation_loss", "loss", "batches", "epochs")
    return [
        (report.group, report.steps_completed, {key: report.metrics[key] for key in keys if key in report.metrics})
        for group in ("training", "validation")
        for report in trial.iter_metrics(group)
    ]


def test_warm_and_fresh_trials_compute_the_same(up, run, tmp_path):
    warm = run()
    assert zygotes(up)
    fresh = run(**FRESH)
    assert measured(warm) == measured(fresh)
    assert len(measured(warm)) == 2
    one, other = weights(warm, tmp_path / "warm"), weights(fresh, tmp_path / "fresh")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.skipif(torch.cuda.is_available(), reason="slots are GPUs here")
@pytest.mark.parametrize("changes", [{}, FRESH], ids=["warm", "fresh"])
def test_trials_of_a_search_take_a_thread_each_and_a_single_one_takes_all(run, changes):
    def threads(trial):
        return next(line for line in trial.iter_logs() if line.rstrip().endswith("threads")).split()[-2]

    assert threads(run(searcher={**CONFIG["searcher"], "name": "random", "max_trials": 1}, **changes)) == "1"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    told = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.get_num_threads())"], env=plain, capture_output=True, check=True
    )
    assert threads(run(**changes)) == told.stdout.decode().strip()


def test_a_warm_process_that_dies_is_replaced(up, run):
    run()
    for pid in (before := zygotes(up)):
        os.kill(pid, signal.SIGKILL)
    run()
    run()
    assert zygotes(up)
    assert zygotes(up).isdisjoint(before)


def test_a_warm_trial_that_fails_ends_with_its_error(run):
    for changes in ({}, FRESH):
        *_, last, ours = run("ERROR", data={"fail_at": 1}, **changes).iter_logs()
        assert last.strip() == "RuntimeError: the code raises here"
        assert ours.endswith("it exited with code 1\n")
