"""`pdk` in pachctl's grammar."""

import json
import sys

import pytest


@pytest.fixture
def pdk(up, name):
    """Run pdk in a project of the test's own."""
    up.run(sys.executable, "-m", "pdk.cli.main", "create", "project", name)

    def run(*words, project=True, **more):
        return up.run(sys.executable, "-m", "pdk.cli.main", *words, *(("--project", name) if project else ()), **more)

    run.json = lambda *words, **more: json.loads(run(*words, "--output", "json", **more))
    run.fails = lambda *words, code=None: up.fails(sys.executable, "-m", "pdk.cli.main", *words, "--project", name, code=code)
    return run


def test_repos_branches_commits_and_files(pdk, tmp_path):
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_bytes(b"one\n")
    (source / "sub" / "b").write_bytes(bytes(range(256)) * 9000)
    pdk("create", "repo", "data", "-d", "things")
    assert "2 files in commit" in pdk("put", "file", "data@master:/in", "-r", "-f", str(source))
    assert [row["path"] for row in pdk.json("list", "file", "data@master:/in")] == ["/in/a", "/in/sub/"]
    assert [row["path"] for row in pdk.json("glob", "file", "data@master:/**/b")] == ["/in/sub/b"]
    assert pdk("get", "file", "data@master:/in/a") == "one\n"
    pdk("get", "file", "data@master:/in", "-r", "-f", str(tmp_path / "out"))
    assert (tmp_path / "out" / "sub" / "b").read_bytes() == (source / "sub" / "b").read_bytes()
    (source / "a").write_bytes(b"two\n")
    pdk("put", "file", "data@master:/in/a", "-a", "-f", str(source / "a"))
    assert pdk("get", "file", "data@master:/in/a") == "one\ntwo\n"
    assert pdk("get", "file", "data@master^:/in/a") == "one\n"
    assert pdk.json("diff", "file", "data@master:/") == [{"change": "changed", "path": "/in/a", "old": 4, "new": 8}]
    pdk("copy", "file", "data@master:/in/a", "data@master:/copy")
    pdk("delete", "file", "data@master:/in", "-r")
    assert [row["path"] for row in pdk.json("list", "file", "data@master:/")] == ["/copy"]
    assert len(pdk.json("list", "commit", "data@master")) == 4
    pdk("create", "branch", "data@old", "--head", "master^2")
    assert pdk.json("inspect", "branch", "data@old")[0]["head"] == pdk.json("inspect", "commit", "data@master^2")[0]["commit"]
    opened = pdk("start", "commit", "data@old").strip()
    pdk("finish", "commit", "data@old", "-m", "empty")
    assert pdk.json("inspect", "commit", f"data@{opened}")[0]["description"] == "empty"
    pdk("drop", "commit", opened, project=False)
    pdk.fails("inspect", "commit", f"data@{opened}", code=3)
    middle = pdk.json("list", "commit", "data@master")[1]["commit"]
    pdk("squash", "commit", middle, project=False)
    assert len(pdk.json("list", "commit", "data@master")) == 3
    assert {row["branch"] for row in pdk.json("list", "branch", "data")} == {"master", "old"}
    pdk("delete", "branch", "data@old")
    assert pdk.json("inspect", "repo", "data")[0]["description"] == "things"
    assert "name" not in pdk("fsck", project=False).lower()
    assert "removed" in pdk("gc", project=False)
    assert "no problems" in pdk("fsck", "--read-data-subset", "10%", project=False)
    pdk("delete", "repo", "data")
    pdk.fails("inspect", "repo", "data", code=3)


def test_what_cannot_be_put(pdk, tmp_path):
    pdk("create", "repo", "data")
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert "symbolic link" in pdk.fails("put", "file", "data@master:/", "-r", "-f", str(tmp_path), code=2)
    (tmp_path / "link").unlink()
    (tmp_path / "a*b").write_text("x")
    assert "globbing character" in pdk.fails("put", "file", "data@master:/", "-r", "-f", str(tmp_path), code=2)
    assert "not found" in pdk.fails("put", "file", "absent@master:/", "-r", "-f", str(tmp_path), code=3)
    assert pdk.json("list", "commit", "data") == []


def test_pipelines_from_a_template(pdk, tmp_path):
    pdk("create", "repo", "data")
    file = tmp_path / "a"
    file.write_text("1")
    pdk("put", "file", "data@master:/a", "-f", str(file))
    template = tmp_path / "p.jsonnet"
    template.write_text(
        'function(name) {pipeline: {name: name}, input: {pfs: {repo: "data", glob: "/*"}},'
        ' transform: {image: "pdk/train:0.1", cmd: ["/bin/sh"], stdin: ["echo from $data; cp /pfs/data/* /pfs/out/"]}}'
    )
    pdk("create", "pipeline", "-f", str(template), "--arg", "name=made")
    assert "from /pfs/data/a" in pdk("logs", "made", "--follow")
    assert pdk.json("list", "datum", "made")[0]["state"] == "success"
    assert pdk.json("list", "pipeline")[0]["pipeline"] == "made"
    pdk("update", "pipeline", "-f", str(template), "--arg", "name=made", "--reprocess")
    assert pdk.json("inspect", "pipeline", "made")[0]["version"] == 2
    pdk("stop", "pipeline", "made")
    pdk("start", "pipeline", "made")
    pdk("delete", "pipeline", "made")
    assert pdk.json("list", "pipeline") == []
