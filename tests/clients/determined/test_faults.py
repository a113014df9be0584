"""What happens to trials when the server, the machine's memory, its disk or its clock fail."""

import contextlib
import json
import os
import signal
import uuid
from pathlib import Path

import psutil
import pytest
import yaml
from determined.experimental import Determined

from conftest import Up, wait_until

SCRIPT = """
import os, select, sys
import determined as det

info = det.get_cluster_info()
hparams = info.trial.hparams
with det.core.init() as core:
    steps = 0
    if info.latest_checkpoint:
        with core.checkpoint.restore_path(info.latest_checkpoint) as path:
            steps = int((path / "steps").read_text())
        print("restored at", steps, flush=True)
    while steps < hparams["steps"]:
        steps += 1
        core.train.report_training_metrics(steps, {"at": steps})
        if steps % 10 == 0:
            core.train.report_validation_metrics(steps, {"loss": 1 / steps})
            with core.checkpoint.store_path({"steps_completed": steps}) as (path, _):
                (path / "steps").write_text(str(steps))
                (path / "ballast").write_bytes(os.urandom(hparams.get("ballast", 1)))
        if hparams.get("group"):
            with open(hparams["group"] + "/tasks", "w") as tasks:
                tasks.write("0")
            hog = bytearray(1 << 30)
            hog[::4096] = b"x" * len(hog[::4096])
        select.select([], [], [], hparams.get("pause", 0))
"""


def sdk_of(up):
    installation = up.installation
    return Determined(master=f"http://127.0.0.1:{installation.ports.determined}", user="determined", password=installation.secret())


@pytest.fixture
def create(tmp_path):
    """Create an experiment with the script on an installation."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(SCRIPT)

    def create(up, storage=None, slots=1, **hparams):
        config = {
            "name": "faults", "entrypoint": "python3 train.py", "searcher": {"name": "single", "metric": "loss"}, "max_restarts": 0,
            "hyperparameters": hparams, "checkpoint_storage": storage or {"save_trial_latest": 99},
            "resources": {"slots_per_trial": slots},
        }  # fmt: skip
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        return sdk_of(up).create_experiment(str(tmp_path / "config.yaml"), str(tmp_path / "code"))

    return create


def log_of(up, experiment):
    return "".join(sdk_of(up).get_experiment(experiment.id).list_trials()[0].iter_logs())


def reported(up, experiment):
    trial = sdk_of(up).get_experiment(experiment.id).list_trials()[0]
    return [report.steps_completed for report in trial.iter_metrics("training")]


@pytest.mark.parametrize("whom", ["the server", "all of them"])
def test_three_trials_outlive_the_server(own_up, create, whom):
    running = [create(own_up, slots=0, steps=60, pause=0.05) for _ in range(2)] + [create(own_up, steps=60, pause=0.05)]
    wait_until(lambda: all(len(reported(own_up, experiment)) > 10 for experiment in running), 60, "three trials at work")
    if whom == "the server":
        (server,) = (pid for pid in own_up.processes() if b"pdk.local.determined\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(server, signal.SIGKILL)
        wait_until(own_up.healthy, 30, "another server")
    else:
        own_up.kill_all()
        own_up.start()
    for experiment in running:
        found = sdk_of(own_up).get_experiment(experiment.id)
        assert found.wait(interval=0.2).name == "COMPLETED", log_of(own_up, experiment)
        assert reported(own_up, experiment) == list(range(1, 61))  # each once
        points = sorted(point.metadata["steps_completed"] for point in found.list_checkpoints())
        assert points == [10, 20, 30, 40, 50, 60]
        assert "restored at" not in log_of(own_up, experiment)  # it never stopped


def test_after_the_machine_went_down_a_trial_goes_on_from_its_checkpoint(own_up, create):
    experiment = create(own_up, steps=60, pause=0.05)
    wait_until(lambda: len(reported(own_up, experiment)) > 22, 60, "a checkpoint and more")
    (started,) = own_up.state.glob("determined/trials/*/run-1/started.json")
    noted = json.loads(started.read_text())
    launcher = psutil.Process(noted["pid"])
    own_up.kill_all()
    for process in (launcher, *launcher.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it went with its parent
            process.kill()
    started.write_text(json.dumps({**noted, "boot": "another one"}))
    own_up.start()
    found = sdk_of(own_up).get_experiment(experiment.id)
    assert found.wait(interval=0.2).name == "COMPLETED", log_of(own_up, experiment)
    assert reported(own_up, experiment) == list(range(1, 61))
    assert "restored at 20" in log_of(own_up, experiment) or "restored at 30" in log_of(own_up, experiment)


def test_a_trial_that_the_kernel_kills_says_so(up, create):
    group = Path("/sys/fs/cgroup/memory") / f"pdk-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory limit can be set here: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(300 << 20))
        experiment = create(up, steps=3, group=str(group))
        assert experiment.wait(interval=0.2).name == "ERROR", log_of(up, experiment)
        assert "killed by the kernel for want of memory" in log_of(up, experiment).splitlines()[-1]
    finally:
        group.rmdir()


def test_a_full_disk_while_checkpointing(up, create, small_disk):
    storage = {"type": "directory", "container_path": str(small_disk), "save_trial_latest": 99}
    experiment = create(up, storage, steps=40, ballast=1_500_000)
    assert experiment.wait(interval=0.2).name == "ERROR"
    assert "No space left on device" in log_of(up, experiment)
    kept = [point for point in experiment.list_checkpoints() if point.state.name == "COMPLETED"]
    assert sorted(point.metadata["steps_completed"] for point in kept) == [10, 20]
    for point in kept:
        assert (small_disk / point.uuid / "ballast").stat().st_size == 1_500_000
    assert create(up, steps=10).wait(interval=0.2).name == "COMPLETED"


def test_a_clock_that_jumps(create, tmp_path, monkeypatch):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed here")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    for name, value in (("LD_PRELOAD", str(library)), ("FAKETIME_TIMESTAMP_FILE", str(clock)), ("FAKETIME_NO_CACHE", "1"),
                        ("FAKETIME_DONT_FAKE_MONOTONIC", "1")):  # fmt: skip
        monkeypatch.setenv(name, value)
    up = Up(tmp_path / "state").start()
    for name in ("LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE"):
        monkeypatch.delenv(name)
    try:
        experiment = create(up, steps=60, pause=0.05)
        for number, jump in ((10, "+1d"), (25, "-2d"), (40, "+0")):
            wait_until(lambda number=number: len(reported(up, experiment)) > number, 60, f"{number} steps")
            clock.write_text(jump)
        assert experiment.wait(interval=0.2).name == "COMPLETED", log_of(up, experiment)
        assert reported(up, experiment) == list(range(1, 61))
        found = up.run("det", "experiment", "describe", str(experiment.id), "--json")
        assert '"duration": -' not in found
        assert create(up, steps=10).wait(interval=0.2).name == "COMPLETED"
    finally:
        up.stop()
