"""`det` and the determined SDK, unchanged, against the local server."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

from conftest import wait_until

MODEL = """
import select
import torch
from determined import pytorch

class Trial(pytorch.PyTorchTrial):
    def __init__(self, context):
        self.context = context
        self.model = context.wrap_model(torch.nn.Linear(2, 1))
        self.optimizer = context.wrap_optimizer(torch.optim.SGD(self.model.parameters(), lr=context.get_hparam("lr")))

    def loader(self):
        rows = torch.utils.data.TensorDataset(torch.ones(16, 2), torch.ones(16, 1))
        return pytorch.DataLoader(rows, batch_size=self.context.get_per_slot_batch_size())

    build_training_data_loader = build_validation_data_loader = loader

    def train_batch(self, batch, epoch_idx, batch_idx):
        select.select([], [], [], self.context.get_data_config().get("pause", 0))
        if batch_idx == self.context.get_data_config().get("fail_at", -1):
            raise RuntimeError("the code raises here")
        loss = ((self.model(batch[0]) - batch[1]) ** 2).mean()
        self.context.backward(loss)
        self.context.step_optimizer(self.optimizer)
        return {"loss": loss}

    def evaluate_batch(self, batch):
        return {"validation_loss": ((self.model(batch[0]) - batch[1]) ** 2).mean()}
"""
CONFIG = {
    "name": "tiny",
    "entrypoint": "model_def:Trial",
    "hyperparameters": {"global_batch_size": 4, "lr": 0.1},
    "searcher": {"name": "single", "metric": "validation_loss", "smaller_is_better": True, "max_length": {"batches": 4}},
    "max_restarts": 0,
}


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "model_def.py").write_text(MODEL)
    return folder


@pytest.fixture
def create(up, det, code, tmp_path):
    """Create an experiment with `det`; returns its number."""

    def run(**changes):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
        output = up.run(det, "experiment", "create", str(tmp_path / "config.yaml"), str(code))
        return re.search(r"Created experiment (\d+)", output)[1]

    return run


@pytest.fixture
def state(sdk):
    """The state of an experiment."""
    return lambda experiment: sdk.get_experiment(int(experiment)).state.name


@pytest.fixture
def trial_of(sdk):
    """The number of an experiment's trial."""
    return lambda experiment: str(sdk.get_experiment(int(experiment)).list_trials()[0].id)


def test_an_experiment_from_create_to_checkpoint(up, det, create, state, trial_of, tmp_path):
    experiment = create(labels=["some-label"])
    up.run(det, "experiment", "wait", experiment, "--polling-interval", "1")
    assert "COMPLETED" in up.run(det, "experiment", "describe", experiment)
    assert state(experiment) == "COMPLETED"
    trial = trial_of(experiment)
    log = up.run(det, "trial", "logs", trial)
    assert "max_length is deprecated" in log
    assert "report_validation_metrics(steps_completed=4" in log
    assert "COMPLETED" in up.run(det, "trial", "describe", trial)
    listed = up.run(det, "experiment", "list-checkpoints", experiment)
    uuid = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", listed)[0]
    for mode in ("direct", "master"):
        up.run(det, "checkpoint", "download", uuid, "-o", str(tmp_path / mode), "--mode", mode)
        assert (tmp_path / mode / "state_dict.pth").exists()
    assert "tiny" in up.run(det, "experiment", "list")


def test_logs_are_followed_until_the_trial_ends(up, det, code, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "data": {"pause": 0.2}}))
    output = up.run(det, "experiment", "create", "-f", str(tmp_path / "config.yaml"), str(code))
    assert "report_validation_metrics" in output
    assert "Trial log stream ended" in output


def test_a_paused_trial_goes_on_from_its_checkpoint(up, det, create, state, trial_of):
    experiment = create(data={"pause": 0.1}, scheduling_unit=1, searcher={**CONFIG["searcher"], "max_length": {"batches": 60}})
    trial = trial_of(experiment)
    wait_until(
        lambda: "report_training_metrics" in up.run(det, "trial", "logs", trial) or "Creating" in up.run(det, "trial", "logs", trial), 60
    )
    up.run(det, "experiment", "pause", experiment)
    wait_until(lambda: "Reported checkpoint" in up.run(det, "trial", "logs", trial), 60)
    assert state(experiment) == "PAUSED"
    up.run(det, "experiment", "activate", experiment)
    up.run(det, "experiment", "wait", experiment, "--polling-interval", "1")
    log = up.run(det, "trial", "logs", trial)
    assert "run 2 of trial" in log
    assert log.count("steps_completed=60, metrics={'validation_loss'") == 1


def test_a_killed_experiment_ends_at_once(up, det, create, state, trial_of):
    experiment = create(data={"pause": 1}, searcher={**CONFIG["searcher"], "max_length": {"batches": 1000}})
    wait_until(lambda: "Creating" in up.run(det, "trial", "logs", trial_of(experiment)), 60)
    up.run(det, "experiment", "kill", experiment)
    wait_until(lambda: state(experiment) == "CANCELED", 20)


def test_code_that_raises_ends_in_error_after_its_restarts(up, det, create, state, trial_of):
    experiment = create(data={"fail_at": 1}, max_restarts=1)
    up.fails(det, "experiment", "wait", experiment, "--polling-interval", "1")
    assert state(experiment) == "ERROR"
    log = up.run(det, "trial", "logs", trial_of(experiment))
    assert log.count("RuntimeError: the code raises here") == 2
    assert "restarts so far: 1" in log
    # what else than those two runs wrote is asked for, brings nothing
    trial = trial_of(experiment)
    second = up.run(det, "trial", "logs", trial, "--container-id", f"trial-{trial}-2")
    assert (second.count("RuntimeError: the code raises here"), "restarts so far: 1" in second) == (1, True)
    for words in (("--container-id", "nothing"), ("--agent-id", "nothing"), ("--stdtype", "stderr"), ("--rank-id", "7")):
        assert "RuntimeError" not in up.run(det, "trial", "logs", trial, *words), words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"entrypoint": None}, "entrypoint"),
        ({"searcher": {"name": "single"}}, "searcher.metric"),
        ({"searcher": {"name": "adaptive_asha", "metric": "x"}}, "max_trials"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"resources": {"slots_per_trial": 8}}, "8 slots"),
        ({"searcher": {**CONFIG["searcher"], "max_length": {"batches": -1}}}, "max_length"),
        ({"workspace": "nothing here"}, "nothing here"),
    ],
)
def test_wrong_configs_are_refused_with_field_and_reason(up, det, code, tmp_path, change, words):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **change}))
    assert words in up.fails(det, "experiment", "create", str(tmp_path / "config.yaml"), str(code))


def test_older_configs_are_translated_with_a_note(up, det, create):
    experiment = create(resources={"slots_per_trial": 1, "resource_pool": "gpu-pool"}, searcher={**CONFIG["searcher"], "max_length": 4})
    up.run(det, "experiment", "wait", experiment, "--polling-interval", "1")
    log = up.run(det, "experiment", "logs", experiment)
    assert "there is no pool 'gpu-pool'" in log
    assert "max_length: 4 was read as 4 batches" in log


def test_a_startup_hook_installs_into_an_environment_of_its_own(up, det, create, code, tmp_path):
    wheel = tmp_path / "wheel"
    (wheel / "pdk_probe").mkdir(parents=True)
    (wheel / "pdk_probe" / "__init__.py").write_text("VALUE = 42\n")
    (wheel / "setup.py").write_text("from setuptools import setup\nsetup(name='pdk-probe', version='1', packages=['pdk_probe'])\n")
    subprocess.run([sys.executable, "setup.py", "-q", "bdist_wheel"], cwd=wheel, check=True, capture_output=True)
    built = next((wheel / "dist").glob("*.whl"))
    (code / built.name).write_bytes(built.read_bytes())
    (code / "startup-hook.sh").write_text(f"pip install --no-index --no-deps ./{built.name}\nexport FROM_HOOK=yes\n")
    (code / "model_def.py").write_text("import os, pdk_probe\nprint('probe', pdk_probe.VALUE, os.environ['FROM_HOOK'])\n" + MODEL)
    site = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"

    def listing():
        return sorted((path.name, path.stat().st_mtime_ns) for path in site.iterdir() if path.name != "__pycache__")

    before = listing()
    experiment = create()
    up.run(det, "experiment", "wait", experiment, "--polling-interval", "1")
    assert "probe 42 yes" in up.run(det, "experiment", "logs", experiment)
    assert listing() == before


def test_the_sdk_creates_waits_and_registers(sdk, code, tmp_path, name):
    experiment = sdk.create_experiment({**CONFIG, "labels": [name]}, str(code))
    assert str(experiment.wait(interval=1)) == "ExperimentState.COMPLETED"
    assert [found.id for found in sdk.list_experiments(labels=[name])] == [experiment.id]
    checkpoint = experiment.list_checkpoints()[0]
    assert checkpoint.training.validation_metrics["avgMetrics"]["validation_loss"] >= 0
    folder = checkpoint.download(path=str(tmp_path / "checkpoint"))
    from determined.pytorch import load_trial_from_checkpoint_path

    trial = load_trial_from_checkpoint_path(folder)
    assert trial.model.in_features == 2
    model = sdk.create_model(name, description="d", metadata={"a": "b"})
    version = model.register_version(checkpoint.uuid)
    version.set_name("a name")
    version.set_notes("notes")
    assert sdk.get_model(name).get_version().name == "a name"
    assert [entry.model_version for entry in model.list_versions()] == [1]
    with pytest.raises(Exception, match="already exists"):
        sdk.create_model(name)


def test_a_version_name_exists_once(up, sdk, code, name):
    experiment = sdk.create_experiment(CONFIG, str(code))
    experiment.wait(interval=1)
    uuid = experiment.list_checkpoints()[0].uuid
    sdk.create_model(name)
    headers = {"Authorization": f"Bearer {sdk._session.token}"}
    url = f"http://127.0.0.1:{up.installation.ports.determined}/api/v1/models/{name}/versions"
    answers = [requests.post(url, json={"checkpointUuid": uuid, "name": "one"}, headers=headers, timeout=10).status_code for _ in range(2)]
    assert answers == [200, 409]


def test_det_model_workspace_and_agent_commands(up, det, name):
    up.run(det, "model", "create", name)
    assert name in up.run(det, "model", "list")
    up.run(det, "workspace", "create", name)
    assert name in up.run(det, "workspace", "list")
    up.run(det, "project", "create", name, "a-project")
    assert "a-project" in up.run(det, "workspace", "list-projects", name)
    assert "local" in up.run(det, "agent", "list")


def test_wrong_and_missing_credentials(up):
    base = f"http://127.0.0.1:{up.installation.ports.determined}"
    assert requests.post(f"{base}/api/v1/auth/login", json={"username": "determined", "password": "wrong"}, timeout=10).status_code == 401
    assert requests.get(f"{base}/api/v1/me", timeout=10).status_code == 401
    assert requests.get(f"{base}/api/v1/me", headers={"Authorization": "Bearer forged"}, timeout=10).status_code == 401


def test_a_context_cannot_leave_its_folder(up, sdk):
    headers = {"Authorization": f"Bearer {sdk._session.token}"}
    url = f"http://127.0.0.1:{up.installation.ports.determined}/api/v1/experiments"
    for path in ("../evil", "/etc/evil"):
        entry = {"path": path, "type": 48, "content": base64.b64encode(b"x").decode(), "mode": 33188, "mtime": "0"}
        answer = requests.post(url, json={"config": yaml.safe_dump(CONFIG), "modelDefinition": [entry]}, headers=headers, timeout=10)
        assert answer.status_code == 400
        assert "leaves it" in answer.json()["error"]["error"]


def test_tokens_in_a_config_are_shown_nowhere(up, det, create):
    experiment = create(data={"pachyderm": {"token": "a-very-secret-token"}})
    up.run(det, "experiment", "wait", experiment, "--polling-interval", "1")
    shown = up.run(det, "experiment", "describe", experiment, "--json") + up.run(det, "experiment", "config", experiment)
    shown += up.run(det, "experiment", "logs", experiment) + up.run(det, "experiment", "list-checkpoints", experiment)
    assert "a-very-secret-token" not in shown
    for log in up.state.rglob("log"):
        assert b"a-very-secret-token" not in log.read_bytes(), log
