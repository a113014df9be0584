"""What experiments' code may be: scripts with pytorch.Trainer, profiled; what is left out of it; what is not there."""

import base64
import io
import os
import tarfile

import pytest
import requests
import yaml

from clients.determined.test_determined import CONFIG, MODEL

SCRIPT = (
    MODEL
    + """
import logging
import determined as det

logging.basicConfig(level=logging.INFO, format=det.LOG_FORMAT)
info = det.get_cluster_info()
with pytorch.init(hparams=info.trial.hparams, exp_conf=info.trial._config) as context:
    trial = Trial(context)
    trainer = pytorch.Trainer(trial, context)
    if info.trial._config["profiling"]["enabled"]:
        trainer.configure_profiler(enabled=True, sync_timings=True, begin_on_batch=0, end_after_batch=None)
    trainer.fit(
        max_length=pytorch.Batch(info.trial.hparams["batches"]),
        validation_period=pytorch.Batch(2),
        reporting_period=pytorch.Batch(2),
        latest_checkpoint=info.latest_checkpoint,
    )
"""
)
PLAIN = {**CONFIG, "entrypoint": "python3 train.py", "searcher": {"name": "single", "metric": "validation_loss"}}


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    return folder


@pytest.fixture
def create(sdk, code, tmp_path):
    """Create an experiment with the script."""

    def create(batches=4, **changes):
        hyperparameters = {**CONFIG["hyperparameters"], "batches": batches}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**PLAIN, "hyperparameters": hyperparameters, **changes}))
        return sdk.create_experiment(str(tmp_path / "config.yaml"), str(code))

    return create


def log_of(experiment):
    return "".join(experiment.list_trials()[0].iter_logs())


def validations(experiment):
    return [report.steps_completed for report in experiment.list_trials()[0].iter_metrics("validation")]


def test_a_script_with_a_trainer_goes_on_from_others_checkpoints(create, up, det):
    first = create()
    assert first.wait(interval=0.2).name == "COMPLETED", log_of(first)
    assert validations(first) == [2, 4]
    uuid = first.list_checkpoints()[0].uuid
    for source in ({"source_checkpoint_uuid": uuid}, {"source_trial_id": first.list_trials()[0].id}):
        later = create(6, searcher={**PLAIN["searcher"], **source})
        assert later.wait(interval=0.2).name == "COMPLETED", log_of(later)
        assert validations(later) == [2, 4, 6]  # other weights, its own count
        assert uuid in log_of(later)
    up.run(det, "experiment", "continue", str(first.id), "--config", "hyperparameters.batches=8")
    assert first.wait(interval=0.2).name == "COMPLETED", log_of(first)
    assert validations(first) == [2, 4, 6, 8]
    assert len(first.list_trials()) == 1


def test_profiling_is_accepted(create):
    experiment = create(60, profiling={"enabled": True})
    assert experiment.wait(interval=0.2).name == "COMPLETED", log_of(experiment)
    groups = set(experiment.list_trials()[0].summary_metrics)
    assert {"avg_metrics", "validation_metrics"} <= groups
    legacy = create(
        entrypoint="train:Trial", searcher=CONFIG["searcher"], profiling={"enabled": True}, hyperparameters=CONFIG["hyperparameters"]
    )
    legacy.wait(interval=0.2)
    assert "profil" not in log_of(legacy).partition("Traceback")[2]


@pytest.mark.parametrize(
    ("entrypoint", "means"),
    [
        ("python3 absent.py", "No such file or directory"),
        ("absent-program --now", "not found"),
        (["absent-program"], "No such file or directory"),
        ("absent_module:Trial", "No module named 'absent_module'"),
        ("train:NoSuchTrial", "NoSuchTrial|No such"),
    ],
)
def test_an_entrypoint_that_is_not_there(create, entrypoint, means):
    experiment = create(entrypoint=entrypoint, searcher=CONFIG["searcher"])
    assert experiment.wait(interval=0.2).name == "ERROR"
    assert any(word in log_of(experiment) for word in means.split("|")), log_of(experiment)


def test_what_detignore_names_stays_at_home(up, det, create, code):
    (code / ".detignore").write_text("*.bin\nprivate/\n")
    (code / "big.bin").write_bytes(b"x")
    (code / "private").mkdir()
    (code / "private" / "key").write_text("secret")
    experiment = create()
    content = base64.b64decode(experiment._session.get(f"/api/v1/experiments/{experiment.id}/model_def").json()["b64Tgz"])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {name for name in archive.getnames() if not name.startswith(".")} == {"train.py"}
    assert experiment.wait(interval=0.2).name == "COMPLETED", log_of(experiment)


def test_a_context_over_the_limit_is_refused(up, det, code, sdk, tmp_path):
    (code / "big").write_bytes(os.urandom(96 << 20))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(PLAIN))
    assert "maximum allowed size" in up.fails(det, "experiment", "create", str(tmp_path / "config.yaml"), str(code))
    entry = {"path": "big", "type": 48, "content": base64.b64encode((code / "big").read_bytes()).decode(), "mode": 420, "mtime": "0"}
    answer = requests.post(
        f"http://127.0.0.1:{up.installation.ports.determined}/api/v1/experiments",
        json={"config": yaml.safe_dump(PLAIN), "modelDefinition": [entry]},
        headers={"Authorization": f"Bearer {sdk._session.token}"},
        timeout=120,
    )
    assert answer.status_code == 400
    assert "larger than 95 MiB" in answer.json()["error"]["error"]
