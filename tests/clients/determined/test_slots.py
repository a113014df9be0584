"""Trials on several slots, trials that make room for others, and what they listen on."""

import contextlib
import ipaddress
import re

import psutil
import pytest
import yaml

from clients.determined.test_determined import CONFIG, MODEL
from conftest import wait_until

SCRIPT = """
import json, os, select, sys
import determined as det
import torch.distributed as dist

info = det.get_cluster_info()
if os.environ.get("RANK"):
    dist.init_process_group("gloo")
    context = det.core.DistributedContext.from_torch_distributed()
    total = sum(context.allgather(context.rank + 1))
else:
    context, total = None, 1
with det.core.init(distributed=context) as core:
    steps = 0
    if info.latest_checkpoint:
        with core.checkpoint.restore_path(info.latest_checkpoint) as path:
            steps = int((path / "steps").read_text())
    while steps < info.trial.hparams["length"]:
        select.select([], [], [], 0.05)
        steps += 1
        if core.preempt.should_preempt():
            if not context or context.rank == 0:
                with core.checkpoint.store_path({"steps_completed": steps}) as (path, _):
                    (path / "steps").write_text(str(steps))
            sys.exit(0)
    if not context or context.rank == 0:
        core.train.report_validation_metrics(steps, {"loss": 1 / total})
"""
LAUNCH = "python3 -m determined.launch.torch_distributed python3 train.py"


@pytest.fixture
def create(sdk, tmp_path):
    """Create an experiment with the script."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(SCRIPT)
    (tmp_path / "code" / "model_def.py").write_text(MODEL)

    def create(length=1, entrypoint=LAUNCH, searcher=None, **resources):
        config = {
            "name": "slots", "entrypoint": entrypoint, "max_restarts": 0, "resources": resources,
            "searcher": searcher or {"name": "single", "metric": "loss"},
            "hyperparameters": {**CONFIG["hyperparameters"], "length": length},
        }  # fmt: skip
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        return sdk.create_experiment(str(tmp_path / "config.yaml"), str(tmp_path / "code"))

    return create


def logs_of(experiment):
    return "".join(experiment.list_trials()[0].iter_logs())


def test_a_torch_trial_trains_on_two_slots(create):
    experiment = create(entrypoint="model_def:Trial", searcher=CONFIG["searcher"], slots_per_trial=2)
    assert experiment.wait(interval=0.2).name == "COMPLETED", logs_of(experiment)
    log = logs_of(experiment)
    assert "[rank=0]" in log
    assert "[rank=1]" in log
    assert "max_length" in log
    assert len(experiment.list_checkpoints()) == 1
    assert [report.steps_completed for report in experiment.list_trials()[0].iter_metrics("validation")] == [4]


def test_processes_of_a_trial_find_each_other_and_nobody_else_does(up, create):
    experiment = create(length=60, slots_per_trial=2)
    trial = experiment.list_trials()[0]

    master = f"http://127.0.0.1:{up.installation.ports.determined}"

    def listeners():
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if {"DET_MASTER": master, "DET_TRIAL_ID": str(trial.id)}.items() <= process.environ().items():
                    found += [entry.laddr for entry in process.net_connections() if entry.status == psutil.CONN_LISTEN]
        return found

    # the store of torch.distributed, two sockets between the ranks, and gloo's own of each rank
    found = wait_until(lambda: (now := listeners()) and len(now) >= 5 and now, 60, "the trial's listeners")
    for address in found:
        ip = ipaddress.ip_address(address.ip)
        assert (getattr(ip, "ipv4_mapped", None) or ip).is_loopback, found
    assert experiment.wait(interval=0.2).name == "COMPLETED", logs_of(experiment)
    report = next(iter(trial.iter_metrics("validation")))
    assert report.metrics["loss"] == pytest.approx(1 / 3)


def test_two_at_once_do_not_collide(create):
    both = [create(length=20) for _ in range(2)]
    assert [experiment.wait(interval=0.2).name for experiment in both] == ["COMPLETED"] * 2, [logs_of(one) for one in both]


def test_more_slots_than_there_are_is_refused_with_the_numbers(up, det, create, tmp_path):
    with pytest.raises(Exception, match=r"slots_per_trial: 1000 slots are asked for, this machine offers \d+"):
        create(slots_per_trial=1000)


def test_a_less_urgent_trial_makes_room_and_goes_on_later(up, det, create):
    slow = [create(length=200, entrypoint="python3 train.py") for _ in range(psutil.cpu_count())]
    for experiment in slow:
        wait_until(lambda id_=experiment.id: "New trial runner" in logs_of_id(up, det, id_), 60)
    urgent = create(length=1, entrypoint="python3 train.py", priority=1)
    assert urgent.wait(interval=0.1).name == "COMPLETED"
    states = [experiment.reload() or experiment.state.name for experiment in slow]
    assert "COMPLETED" not in states
    assert [experiment.wait(interval=0.2).name for experiment in slow] == ["COMPLETED"] * len(slow)
    resumed = [experiment for experiment in slow if "run 2 of trial" in logs_of(experiment)]
    assert len(resumed) == 1  # no more than had to
    assert len(resumed[0].list_checkpoints()) == 1
    assert "restarts so far: 0" in logs_of(resumed[0])


def logs_of_id(up, det, experiment):
    trials = up.run(det, "experiment", "list-trials", str(experiment), "--csv")
    found = re.search(r"^(\d+),", trials, re.MULTILINE)
    return up.run(det, "trial", "logs", found[1]) if found else ""
