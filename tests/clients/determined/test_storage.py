"""Checkpoints where the config says: folders and buckets; read, thinned out and removed there."""

import json
import os
import urllib.request
from functools import partial
from pathlib import Path

import boto3
import pytest
import yaml

from conftest import wait_until

SCRIPT = """
import determined as det

info = det.get_cluster_info()
with det.core.init() as core:
    steps = 0
    if info.latest_checkpoint:
        with core.checkpoint.restore_path(info.latest_checkpoint) as path:
            steps = int((path / "steps").read_text())
    for steps in range(steps + 1, steps + 3):
        core.train.report_validation_metrics(steps, {"loss": 1 / steps})
        with core.checkpoint.store_path({"steps_completed": steps}) as (path, _):
            (path / "steps").write_text(str(steps))
            (path / "inner").mkdir()
            (path / "inner" / "more").write_text("more")
"""


@pytest.fixture
def run(sdk, tmp_path):
    """Run an experiment that makes two checkpoints of which one stays."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(SCRIPT)

    def run(storage, **more):
        config = {
            "name": "stored", "entrypoint": "python3 train.py", "searcher": {"name": "single", "metric": "loss"}, "max_restarts": 0,
            "checkpoint_storage": {**storage, "save_trial_best": 0}, **more,
        }  # fmt: skip
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        experiment = sdk.create_experiment(str(tmp_path / "config.yaml"), str(tmp_path / "code"))
        assert experiment.wait(interval=0.1).name == "COMPLETED", "".join(experiment.list_trials()[0].iter_logs())
        return experiment

    return run


def check(up, det, experiment, listed, tmp_path):
    """What every storage must do; `listed` names the files in it."""
    (kept,) = [found for found in experiment.list_checkpoints() if found.state.name == "COMPLETED"]
    assert kept.metadata["steps_completed"] == 2
    wait_until(lambda: {name.split("/")[0] for name in listed() if "tensorboard" not in name} == {kept.uuid}, 30, "the policy")
    for mode in ("direct", "master"):
        up.run(det, "checkpoint", "download", kept.uuid, "-o", str(tmp_path / mode), "--mode", mode)
        assert (tmp_path / mode / "steps").read_text() == "2"
        assert (tmp_path / mode / "inner" / "more").read_text() == "more"
    up.run(det, "checkpoint", "rm", kept.uuid, "--glob", "inner/**", "--yes")
    assert f"{kept.uuid}/inner/more" not in listed()
    assert f"{kept.uuid}/steps" in listed()
    kept.reload()
    assert kept.state.name == "PARTIALLY_DELETED"
    assert "steps" in kept.resources
    assert "inner/more" not in kept.resources
    assert "cannot contain" in up.fails(det, "checkpoint", "rm", kept.uuid, "--glob", "../**", "--yes")
    up.run(det, "experiment", "delete", str(experiment.id), "--yes")
    wait_until(lambda: not [name for name in listed() if not name.endswith("/")], 30, "the end of the files")


def files(folder):
    return lambda: {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_a_shared_folder(up, det, run, tmp_path):
    host = tmp_path / "shared"
    experiment = run({"type": "shared_fs", "host_path": str(host), "storage_path": "inner"})
    check(up, det, experiment, files(host / "inner"), tmp_path)


def test_a_folder_that_is_mounted_elsewhere(up, det, run, tmp_path):
    host = tmp_path / "own"
    host.mkdir()
    mounts = [{"host_path": str(host), "container_path": "/checkpoints"}]
    experiment = run({"type": "directory", "container_path": "/checkpoints/deep"}, bind_mounts=mounts)
    (kept,) = [found for found in experiment.list_checkpoints() if found.state.name == "COMPLETED"]
    assert (host / "deep" / kept.uuid / "steps").read_text() == "2"
    assert Path(kept.download(str(tmp_path / "got")), "steps").read_text() == "2"


def test_a_bucket(up, det, run, tmp_path, name, monkeypatch):
    up.run("pdk", "create", "repo", name)
    up.run("pdk", "create", "branch", f"{name}@master")
    endpoint, secret = f"http://127.0.0.1:{up.installation.ports.s3}", up.installation.secret()
    bucket = f"master.{name}"
    given = {"type": "s3", "bucket": bucket, "access_key": secret, "secret_key": secret, "endpoint_url": endpoint, "prefix": "some"}
    experiment = run(given)
    client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=secret, aws_secret_access_key=secret, region_name="us-east-1")

    def listed():
        found = client.list_objects_v2(Bucket=bucket, Prefix="some/").get("Contents") or ()
        return {entry["Key"].removeprefix("some/") for entry in found}

    assert secret not in up.run(det, "experiment", "config", str(experiment.id))
    kept = next(found for found in experiment.list_checkpoints() if found.state.name == "COMPLETED")
    up.run(det, "checkpoint", "download", kept.uuid, "-o", str(tmp_path / "auto"))  # a client without keys gets it from the master
    assert (tmp_path / "auto" / "steps").read_text() == "2"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", secret)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    check(up, det, experiment, listed, tmp_path)


def test_buckets_of_real_stores(up, det, run, tmp_path, name, monkeypatch):
    """S3 and GCS of the testbed, where it is up."""
    real, gcs = os.environ.get("PDK_TEST_S3"), os.environ.get("PDK_TEST_GCS")
    if not real or not gcs:
        pytest.skip("PDK_TEST_S3 and PDK_TEST_GCS name no stores: the testbed is not up")
    client = boto3.client("s3", endpoint_url=real)
    client.create_bucket(Bucket=name)
    keys = {"access_key": os.environ["AWS_ACCESS_KEY_ID"], "secret_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
    experiment = run({"type": "s3", "bucket": name, "endpoint_url": real, **keys})
    listing = partial(client.list_objects_v2, Bucket=name)
    check(up, det, experiment, lambda: {entry["Key"] for entry in listing().get("Contents") or ()}, tmp_path / "s3")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs)
    made = urllib.request.Request(f"{gcs}/storage/v1/b", json.dumps({"name": name}).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(made)
    variables = {"environment_variables": [f"STORAGE_EMULATOR_HOST={gcs}"]}
    experiment = run({"type": "gcs", "bucket": name, "prefix": "some"}, environment=variables)

    def listed():
        with urllib.request.urlopen(f"{gcs}/storage/v1/b/{name}/o") as answer:
            return {entry["name"].removeprefix("some/") for entry in json.load(answer).get("items") or ()}

    check(up, det, experiment, listed, tmp_path / "gcs")


@pytest.mark.parametrize(
    ("storage", "means"),
    [
        ({"type": "azure", "container": "c"}, "azure is not offered by the local server"),
        ({"type": "tape"}, "'tape' is none of directory, shared_fs, s3, gcs"),
        ({"type": "s3"}, "bucket: is required"),
        ({"type": "s3", "bucket": 3}, "bucket: a text is expected, not 3"),
        ({"type": "gcs", "bucket": "b", "region": "x"}, "region: unknown field 'region'"),
        ({"bucket": "b"}, "type: is required with 'bucket'"),
        ({"type": "shared_fs", "host_path": "relative"}, "host_path: an absolute path is expected"),
        ({"type": "directory", "container_path": "/proc/here"}, "container_path: /proc/here cannot be made"),
        ({"type": "shared_fs", "host_path": "/tmp", "storage_path": "../etc"}, "holds '..'"),
    ],
)
def test_what_cannot_be_a_storage_is_refused(run, storage, means):
    with pytest.raises(Exception, match=means):
        run(storage)


def test_tensorboard_files_are_where_the_answer_says(up, det, run, tmp_path):
    experiment = run({})
    said = up.fails(det, "tensorboard", "start", str(experiment.id))
    place = said.split("tensorboard --logdir ")[1].split()[0].rstrip('"}')
    assert list(Path(place).rglob("*tfevents*")), said


def test_a_glob_that_matches_nothing_changes_nothing(up, det, run):
    experiment = run({})
    kept = next(found for found in experiment.list_checkpoints() if found.state.name == "COMPLETED")
    up.run(det, "checkpoint", "rm", kept.uuid, "--glob", "typo*", "--yes")
    kept.reload()
    assert kept.state.name == "COMPLETED"


def test_a_checkpoint_is_named_by_a_uuid(up, sdk, run):
    experiment = run({})
    task = sdk._session.get(f"/api/v1/trials/{experiment.list_trials()[0].id}").json()["trial"]["taskId"]
    for name in ("", ".", "..", "/etc", "../../secret", "x"):
        report = {"uuid": name, "taskId": task, "metadata": {"steps_completed": 1}, "state": "STATE_COMPLETED"}
        with pytest.raises(Exception, match="Invalid UUID"):
            sdk._session.post("/api/v1/checkpoints", json=report)


def test_the_installation_itself_is_mounted_nowhere(up, run, tmp_path):
    state = up.state
    for storage, more in (
        ({"type": "shared_fs", "host_path": str(state)}, {}),
        ({"type": "directory", "container_path": str(state / "determined")}, {}),
        ({}, {"bind_mounts": [{"host_path": str(state / "pachyderm"), "container_path": "/p"}]}),
    ):
        with pytest.raises(Exception, match="a folder of the installation itself"):
            run(storage, **more)
    look = "import os\nprint('seen', os.listdir('/above'), os.listdir('/above/state'))\n" + SCRIPT
    (tmp_path / "code" / "train.py").write_text(look)
    experiment = run({}, bind_mounts=[{"host_path": str(state.parent), "container_path": "/above"}])
    assert "seen ['state'] []" in "".join(experiment.list_trials()[0].iter_logs())


def test_what_is_continued_keeps_its_storage(up, det, run):
    experiment = run({})
    words = (det, "experiment", "continue", str(experiment.id), "--config")
    assert "checkpoint_storage cannot be changed" in up.fails(*words, "checkpoint_storage.container_path=/elsewhere")
    up.run(*words, "checkpoint_storage.save_trial_latest=3")
