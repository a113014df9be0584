"""Jobs as their programs and their surroundings see them: buckets as inputs, egress, datums that are started anew, limits of time."""

import json
import os
import shutil
import urllib.request

import boto3
import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from clients.pachyderm.test_logs import pach  # noqa: F401 - a fixture
from conftest import Up, wait_until
from pdk.kit.web import free_ports
from pdk.local.pachyderm.runtime.layout import SHARED_MEMORY

READ_BUCKET = """
import boto3, os
client = boto3.client("s3")
names = [entry["Key"] for entry in client.list_objects_v2(Bucket="data")["Contents"]]
with open("/pfs/out/read", "w") as file:
    for name in names:
        file.write(name + "=" + client.get_object(Bucket="data", Key=name)["Body"].read().decode() + ";")
    file.write(str([bucket["Name"] for bucket in client.list_buckets()["Buckets"]]))
"""


def create(client, project, name, script, **more):
    """Create a pipeline over ``data``; its newest job."""
    own = pfs.Project(name=project)
    spec = {
        "pipeline": {"name": name, "project": {"name": project}},
        "transform": {"image": "pdk/train:0.1", "cmd": ["sh", "-c", script], **more.pop("transform", {})},
        "input": more.pop("input", {"pfs": {"repo": "data", "glob": "/*"}}),
        "datum_tries": 1,
        **more,
    }
    client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec))
    return next(iter(client.pps.list_job(pipeline=pps.Pipeline(name=name, project=own)))).job


def ended(client, job):
    return client.pps.inspect_job(job=job, wait=True, details=True)


def read(client, project, repo, path):
    target = pfs.Repo(name=repo, type="user", project=pfs.Project(name=project))
    with client.pfs.pfs_file(
        file=pfs.File(commit=pfs.Commit(repo=target, branch=pfs.Branch(repo=target, name="master")), path=path)
    ) as file:
        return file.read().decode()


def reason(client, job):
    info = ended(client, job)
    return pps.JobState(info.state).name, info.reason


@pytest.fixture
def client(up, pach):  # noqa: F811 - makes the project with repo and two files
    return Client(host="127.0.0.1", port=up.installation.ports.pachyderm)


def test_an_input_is_read_as_a_bucket(client, name):
    source = {"pfs": {"repo": "data", "glob": "/", "s3": True}}
    job = create(client, name, "p", "", transform={"cmd": ["python", "-c", READ_BUCKET]}, input=source)
    assert ended(client, job).reason == ""
    assert read(client, name, "p", "/read") == "a=a;b=b;['data']"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_program_runs_as_the_user_of_its_spec(client, name):
    script = "id -un > /pfs/out/who; cat /pfs/data/deep/a > /pfs/out/read; touch /pfs/data/deep/x || true"
    repo = pfs.Repo(name="data", type="user", project=pfs.Project(name=name))
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        commit.put_file_from_bytes(path="/deep/a", data=b"deep")
    job = create(
        client, name, "p", "", input={"pfs": {"repo": "data", "glob": "/"}}, transform={"cmd": ["sh", "-c", script], "user": "nobody"}
    )
    assert ended(client, job).reason == ""
    assert read(client, name, "p", "/who") == "nobody\n"
    assert read(client, name, "p", "/read") == "deep"


def test_inputs_that_are_taken_away_fail_the_job(client, name):
    job = create(client, name, "p", "echo begun; sleep 4; ls /pfs/data > /pfs/out/seen", input={"pfs": {"repo": "data", "glob": "/"}})
    wait_until(lambda: [line.message for line in client.pps.get_logs(job=job)] == ["begun"], 20)
    for folder in SHARED_MEMORY.glob(f"pdk-*/*-{job.id}-*"):
        shutil.rmtree(folder)
    state, why = reason(client, job)
    assert state == "JOB_FAILURE"
    assert "only 0 of the 2 input files" in why


def test_a_running_datum_is_started_anew(client, name):
    job = create(client, name, "p", "echo begun; sleep 4; echo through", input={"pfs": {"repo": "data", "glob": "/a"}}, datum_tries=2)
    lines = lambda: [line.message for line in client.pps.get_logs(job=job)]  # noqa: E731
    wait_until(lambda: lines() == ["begun"], 20)
    client.pps.restart_datum(job=job, data_filters=["/a"])
    assert ended(client, job).reason == ""
    assert lines() == ["begun", "begun", "through"]


def test_time_is_limited_and_workers_work_side_by_side(client, name):
    slow, late = create(client, name, "slow", "sleep 60", datum_timeout="1s"), create(client, name, "late", "sleep 60", job_timeout="1s")
    state, why = reason(client, slow)
    assert (state, "datum_timeout of 1 s" in why) == ("JOB_FAILURE", True)
    state, why = reason(client, late)
    assert (state, "job_timeout of 1 s" in why) == ("JOB_KILLED", True)
    both = create(client, name, "both", "date +%s%N > /pfs/out/$PACH_DATUM_ID; sleep 2", parallelism_spec={"constant": 2})
    assert ended(client, both).reason == ""
    target = pfs.Repo(name="both", type="user", project=pfs.Project(name=name))
    listed = client.pfs.list_file(file=pfs.File(commit=pfs.Commit(repo=target, id=both.id), path="/"))
    begun = sorted(int(read(client, name, "both", info.file.path)) for info in listed)
    assert begun[1] - begun[0] < 2e9  # nanoseconds: the second did not wait for the first


def test_output_is_copied_to_a_folder(up, client, name):
    copied = "mkdir /pfs/out/deep; cp /pfs/data/* /pfs/out/deep/"
    job = create(client, name, "p", copied, egress={"URL": f"file://{up.egress}/{name}/out"})
    assert ended(client, job).reason == ""
    assert {path.name: path.read_text() for path in (up.egress / name / "out" / "deep").iterdir()} == {"a": "a", "b": "b"}


def test_output_is_copied_nowhere_else(up, client, name):
    for number, url in enumerate(
        (f"file://{up.state}", f"file://{up.egress}/../state", f"file://{up.egress}x", "s3://bucket/x", "gs://b/x")
    ):
        with pytest.raises(grpc.RpcError) as refused:
            create(client, name, f"p{number}", "true", egress={"URL": url})
        assert f"egress to {url} is not allowed here" in refused.value.details()
    (up.egress / name).symlink_to(up.state)
    job = create(
        client,
        name,
        "p",
        "echo x > /pfs/out/secret",
        input={"pfs": {"repo": "data", "glob": "/"}},
        egress={"URL": f"file://{up.egress}/{name}"},
    )
    assert "Not a directory" in ended(client, job).reason
    assert up.installation.secret().startswith("Pdk")


def test_output_is_copied_to_object_stores(tmp_path, monkeypatch, name):
    """To S3 and GCS of the testbed where it is up, and always to the server's own S3 gateway."""
    (port,) = free_ports("127.0.0.1", 1)
    real, gcs = os.environ.get("PDK_TEST_S3"), os.environ.get("PDK_TEST_GCS")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", real or f"http://127.0.0.1:{port}")
    for key in () if real else ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "any")
    bucket = name if real else "master.sink.default"
    if gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs)
        made = urllib.request.Request(f"{gcs}/storage/v1/b", json.dumps({"name": name}).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(made)
    running = Up(tmp_path / "state")
    running.extra = ("--port", f"s3={port}", "--allow-egress", f"s3://{bucket}/below", "--allow-egress", f"s3://{name}-absent")
    running.extra += ("--allow-egress", f"gs://{name}") if gcs else ()
    running.start()
    try:
        client = Client(host="127.0.0.1", port=running.installation.ports.pachyderm)
        boto3.client("s3").create_bucket(Bucket=bucket)
        client.pfs.create_repo(repo=pfs.Repo(name="data", type="user", project=pfs.Project(name="default")))
        target = pfs.Repo(name="data", type="user", project=pfs.Project(name="default"))
        with client.pfs.commit(branch=pfs.Branch(repo=target, name="master")) as commit:
            commit.put_file_from_bytes(path="/a", data=b"a" * (9 << 20))  # in more than one part
        job = create(client, "default", "p", "cp /pfs/data/* /pfs/out/", egress={"URL": f"s3://{bucket}/below"})
        assert ended(client, job).reason == ""
        assert boto3.client("s3").get_object(Bucket=bucket, Key="below/a")["Body"].read() == b"a" * (9 << 20)
        if gcs:
            job = create(client, "default", "g", "cp /pfs/data/* /pfs/out/", egress={"URL": f"gs://{name}/below"})
            assert ended(client, job).reason == ""
            with urllib.request.urlopen(f"{gcs}/storage/v1/b/{name}/o/below%2Fa?alt=media") as answer:
                assert answer.read() == b"a" * (9 << 20)
        refused = create(client, "default", "n", "cp /pfs/data/* /pfs/out/", egress={"URL": f"s3://{name}-absent/x"})
        assert f"egress to s3://{name}-absent/x failed" in ended(client, refused).reason
    finally:
        running.stop()
