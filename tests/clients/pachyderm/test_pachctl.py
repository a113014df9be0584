"""pachctl, unchanged, against the local server."""

import json

import pytest

from conftest import CHECKOUT, wait_until


@pytest.fixture
def project(up, pachctl, name):
    up.run(pachctl, "create", "project", name)
    return name


@pytest.fixture
def pach(up, pachctl, project):
    """Run pachctl in a project of the test's own."""

    def run(verb, *words, **more):
        local = ("--project", project) if verb not in ("version", "connect", "config", "fsck") else ()
        return up.run(pachctl, verb, *words, *local, **more)

    run.fails = lambda *words: up.fails(pachctl, *words, "--project", project)
    return run


def spec(name, repo, script, **more):
    transform = {"image": "pdk/train:0.1", "cmd": ["/bin/sh"], "stdin": [script]}
    return (
        "---\n"
        + json.dumps(
            {"pipeline": {"name": name}, "transform": transform, "input": {"pfs": {"repo": repo, "glob": "/"}}, "datum_tries": 1, **more}
        )
        + "\n"
    )


def newest(pach, pipeline):
    """The newest job of a pipeline as JSON."""
    return json.JSONDecoder().raw_decode(pach("list", "job", "-p", pipeline, "--raw"))[0]


def wait_job(pach, pipeline, commit):
    pach("wait", "commit", f"{pipeline}@{commit}")
    return json.loads(pach("inspect", "job", f"{pipeline}@{commit}", "--raw"))


def head(pach, repo):
    return json.loads(pach("inspect", "branch", f"{repo}@master", "--raw"))["head"]["id"]


def test_version_names_client_and_server(pach):
    assert pach("version").split().count("2.12.2") == 2


def test_files_come_back_as_they_were_put(pach, tmp_path):
    source = tmp_path / "in"
    (source / "b").mkdir(parents=True)
    (source / "a").write_bytes(b"one\n")
    (source / "empty").touch()
    (source / "b" / "large").write_bytes(bytes(range(256)) * 9000)
    pach("create", "repo", "data")
    pach("put", "file", "data@master:/x", "-f", str(source), "-r")
    assert [line.split()[1] for line in pach("list", "file", "data@master:/x").splitlines()[1:]] == ["/x/a", "/x/b/", "/x/empty"]
    assert pach("get", "file", "data@master:/x/a") == "one\n"
    pach("get", "file", "data@master:/", "-r", "-o", str(tmp_path / "out"))
    for path in ("a", "empty", "b/large"):
        assert (tmp_path / "out" / "x" / path).read_bytes() == (source / path).read_bytes()
    assert "/x/b/large" in pach("glob", "file", "data@master:/**/l*")


def test_put_replaces_and_append_appends(pach):
    pach("create", "repo", "data")
    pach("put", "file", "data@master:/f", stdin="one\n")
    pach("put", "file", "data@master:/f", stdin="two\n")
    pach("put", "file", "data@master:/f", "-a", stdin="three\n")
    assert pach("get", "file", "data@master:/f") == "two\nthree\n"
    assert pach("get", "file", "data@master^:/f") == "two\n"
    assert pach("get", "file", "data@master.1:/f") == "one\n"
    assert "/f" in pach("diff", "file", "data@master:/f", "data@master^:/f", "--name-only")
    pach("delete", "file", "data@master:/f")
    assert "not found" in pach.fails("get", "file", "data@master:/f")


def test_an_open_commit_takes_files_and_a_finished_one_does_not(pach):
    pach("create", "repo", "data")
    commit = pach("start", "commit", "data@master").strip()
    pach("put", "file", f"data@{commit}:/a", stdin="a")
    pach("put", "file", "data@master:/b", stdin="b")
    pach("finish", "commit", "data@master")
    assert [line.split()[1] for line in pach("list", "file", f"data@{commit}").splitlines()[1:]] == ["/a", "/b"]
    assert "finished" in pach.fails("put", "file", f"data@{commit}:/c", "-f", __file__)


def test_branches_fork(pach):
    pach("create", "repo", "data")
    pach("put", "file", "data@master:/a", stdin="1")
    pach("create", "branch", "data@other", "--head", "master")
    pach("put", "file", "data@master:/a", stdin="2")
    pach("put", "file", "data@other:/b", stdin="3")
    assert pach("get", "file", "data@other:/a") == "1"
    assert "/b" not in pach("list", "file", "data@master")
    assert pach("list", "branch", "data").count("\n") == 3


def test_errors_name_what_is_missing(pach, project):
    assert f"repo {project}/nothing not found" in pach.fails("inspect", "repo", "nothing")
    pach("create", "repo", "data")
    assert "already exists" in pach.fails("create", "repo", "data")
    assert "invalid" in pach.fails("create", "repo", "no spaces")
    assert "not found" in pach.fails("list", "file", "data@master")


def test_a_pipeline_runs_and_triggers_the_next(pach, tmp_path):
    pach("create", "repo", "data")
    (tmp_path / "two.json").write_text(
        spec("first", "data", "ls /pfs/data > /pfs/out/names; echo hello from $PACH_JOB_ID")
        + spec("second", "first", "cp /pfs/first/names /pfs/out/copy")
    )
    pach("create", "pipeline", "-f", str(tmp_path / "two.json"))
    listed = pach("list", "pipeline")
    assert "first" in listed
    assert "second" in listed
    pach("put", "file", "data@master:/a", stdin="a")
    commit = head(pach, "data")
    assert wait_job(pach, "second", commit)["state"] == "JOB_SUCCESS"
    assert pach("get", "file", "second@master:/copy") == "a\n"
    assert f"hello from {commit}" in pach("logs", "-j", f"first@{commit}")
    assert f"hello from {commit}" in pach("logs", "-p", "first", "-f")
    assert "success" in pach("list", "datum", f"first@{commit}")
    assert commit in pach("list", "commit")
    pach("put", "file", "data@master:/b", stdin="b")
    assert wait_job(pach, "second", head(pach, "data"))["state"] == "JOB_SUCCESS"
    assert pach("get", "file", "second@master:/copy") == "a\nb\n"


def test_a_failing_job_says_why_and_the_next_commit_runs(pach, tmp_path):
    pach("create", "repo", "data")
    (tmp_path / "p.json").write_text(spec("fails", "data", "echo the reason why; test ! -e /pfs/data/bad") + spec("after", "fails", "true"))
    pach("create", "pipeline", "-f", str(tmp_path / "p.json"))
    pach("put", "file", "data@master:/bad", stdin="x")
    bad = head(pach, "data")
    job = wait_job(pach, "fails", bad)
    assert job["state"] == "JOB_FAILURE"
    assert "the reason why" in job["reason"]
    assert wait_job(pach, "after", bad)["state"] == "JOB_UNRUNNABLE"
    pach("delete", "file", "data@master:/bad")
    pach("put", "file", "data@master:/good", stdin="x")
    assert wait_job(pach, "after", head(pach, "data"))["state"] == "JOB_SUCCESS"


def test_a_running_job_is_stopped(pach, tmp_path):
    pach("create", "repo", "data")
    (tmp_path / "p.json").write_text(spec("slow", "data", "echo started; sleep 1000"))
    pach("create", "pipeline", "-f", str(tmp_path / "p.json"))
    pach("put", "file", "data@master:/a", stdin="x")
    commit = head(pach, "data")
    wait_until(lambda: "started" in pach("logs", "-j", f"slow@{commit}"), 20)
    pach("stop", "job", f"slow@{commit}")
    job = json.loads(pach("inspect", "job", f"slow@{commit}", "--raw"))
    assert (job["state"], job["reason"]) == ("JOB_KILLED", "job stopped")


def test_a_foreign_image_that_cannot_be_run_fails_the_job(pach, tmp_path):
    pach("create", "repo", "data")
    (tmp_path / "p.json").write_text(spec("foreign", "data", "true").replace("pdk/train:0.1", "example.com/other:1"))
    pach("create", "pipeline", "-f", str(tmp_path / "p.json"))
    pach("put", "file", "data@master:/a", stdin="x")
    job = wait_job(pach, "foreign", head(pach, "data"))
    assert job["state"] == "JOB_FAILURE"
    assert "podman" in job["reason"] or "docker" in job["reason"]


def test_pipelines_are_updated_stopped_started_and_deleted(pach, tmp_path):
    pach("create", "repo", "data")
    file = tmp_path / "p.json"
    file.write_text(spec("p", "data", "echo one > /pfs/out/x"))
    pach("create", "pipeline", "-f", str(file))
    pach("put", "file", "data@master:/a", stdin="x")
    wait_job(pach, "p", head(pach, "data"))
    file.write_text(spec("p", "data", "echo two > /pfs/out/x"))
    assert "already exists" in pach.fails("create", "pipeline", "-f", str(file))
    pach("update", "pipeline", "-f", str(file))
    wait_job(pach, "p", newest(pach, "p")["job"]["id"])
    assert pach("get", "file", "p@master:/x") == "one\n"  # the datum is the same: it is not run again, as on the engine
    pach("update", "pipeline", "-f", str(file), "--reprocess")
    pach("wait", "commit", "p@master")
    assert pach("get", "file", "p@master:/x") == "two\n"
    pach("stop", "pipeline", "p")
    before = newest(pach, "p")["job"]["id"]
    pach("put", "file", "data@master:/b", stdin="x")
    assert newest(pach, "p")["job"]["id"] == before
    pach("start", "pipeline", "p")
    assert newest(pach, "p")["job"]["id"] != before
    assert "provenance" in pach.fails("delete", "repo", "data")
    pach("delete", "pipeline", "p")
    pach("delete", "repo", "data")
    assert "data" not in pach("list", "repo")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputt": {}}, "inputt"),
        ({"input": {"pfs": {"repo": "missing", "glob": "/"}}}, "missing not found"),
        ({"input": {"pfs": {"repo": "data"}}}, "glob"),
        ({"input": {"pfs": {"repo": "data", "glob": "/[a"}}}, "malformed"),
        ({"spout": {}}, "spouts are not supported locally"),
        ({"transform": {"image": "pdk/train:0.1"}}, "cmd"),
    ],
)
def test_wrong_specs_are_refused_with_the_reason(pach, tmp_path, change, words):
    pach("create", "repo", "data")
    (tmp_path / "p.json").write_text(json.dumps({**json.loads(spec("p", "data", "true").removeprefix("---\n")), **change}))
    if change == {"spout": {}}:
        (tmp_path / "p.json").write_text(
            json.dumps({**json.loads(spec("p", "data", "true").removeprefix("---\n")), "spout": {"service": {"internal_port": 1}}})
        )
    assert words in pach.fails("create", "pipeline", "-f", str(tmp_path / "p.json"))
    assert "data" in pach("list", "repo")
    assert pach("list", "pipeline").count("\n") == 1


def test_the_store_is_consistent(pach):
    assert "No errors" in pach("fsck")


def test_the_demo_specs_are_accepted_as_they_stand(pach):
    pach("create", "repo", "dogs-and-cats-data")
    for file in ("training-pipeline.json", "deployment-pipeline.json"):
        pach("create", "pipeline", "-f", str(CHECKOUT / "pipelines/dogs-and-cats" / file))
    assert "dogs-and-cats-deploy" in pach("list", "pipelines")
