"""pachctl, command by command."""

import json

import pytest


@pytest.fixture
def t(engine, recorded):
    return engine.transcript


def first(text):
    """The first JSON object of an output."""
    return json.JSONDecoder().raw_decode(text)[0]


def test_repos_and_files(engine, t, tmp_path):
    pach = engine.pachctl
    pach("create", "repo", "data", "-d", "things")
    pach("create", "repo", "data", means="already exists")
    pach("list", "repo", "--raw", show=lambda out: first(out)["description"])
    engine.transcript.names[str(tmp_path)] = "FOLDER"
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("one\n")
    (source / "sub" / "b").write_text("two\n")
    pach("put", "file", "data@master:/in", "-r", "-f", str(source), show=lambda _: "")
    pach("put", "file", "data@master:/from-stdin", stdin="typed\n")
    pach("list", "file", "data@master:/", "--raw", show=lambda out: first(out)["file"]["path"])
    pach("glob", "file", "data@master:/in/**")
    pach("get", "file", "data@master:/in/a")
    pach("get", "file", "data@master:/in/sub/b")
    pach("get", "file", "data@master:/none", means="not found")
    pach("inspect", "file", "data@master:/in/a", show=lambda out: [line for line in out.splitlines() if "hash" not in line.lower()])
    pach("put", "file", "data@master:/from-stdin", "-a", stdin="more\n")
    pach("get", "file", "data@master:/from-stdin")
    pach("copy", "file", "data@master:/in/a", "data@master:/copy")
    pach("get", "file", "data@master:/copy")
    pach("delete", "file", "data@master:/copy")
    pach("get", "file", "data@master:/copy", means="not found")
    pach("delete", "file", "-r", "data@master:/in")
    pach("list", "file", "data@master:/", show=lambda out: [line.split()[0] for line in out.splitlines()])
    pach("get", "file", "data@master^:/in/a", show=lambda out: out)
    pach(
        "diff",
        "file",
        "data@master:/",
        "data@master^:/",
        "--name-only",
        show=lambda out: sorted(line.split()[-1] for line in out.splitlines()),
    )
    pach("list", "file", "absent@master:/", means="not found")
    pach("put", "file", "absent@master:/x", means="not found", stdin="x")


def test_commits_and_branches(engine, t):
    pach = engine.pachctl
    pach("create", "repo", "data")
    pach("start", "commit", "data@master")
    pach("put", "file", "data@master:/a", stdin="x")
    pach("start", "commit", "data@master", means="has not been finished")
    pach("finish", "commit", "data@master", "-m", "done")
    pach("finish", "commit", "data@master", means="already finished")
    pach("inspect", "commit", "data@master", "--raw", show=lambda out: first(out)["description"])
    pach("list", "commit", "data@master", "--raw", show=lambda out: first(out)["origin"])
    pach("create", "branch", "data@dev", "--head", "master")
    pach("list", "branch", "data", show=lambda out: sorted(line.split()[0] for line in out.splitlines()))
    pach("delete", "branch", "data@dev")
    pach("inspect", "branch", "data@dev", means="not found")
    head = engine.sdk.pfs.inspect_branch(branch=engine.branch()).head.id
    pach("squash", "commit", head, means="no children", stdin="y\n", local=False)
    pach("put", "file", "data@master:/b", stdin="x")
    pach("list", "commit", "data@master", show=lambda out: len(out.splitlines()))
    pach("wait", "commit", "data@master", show=lambda _: "")
    pach("find", "commit", "data@master:/a", show=lambda out: len(out.splitlines()))
    pach("create", "branch", "data@follow", "--trigger", "master", "--trigger-commits", "2")
    pach("inspect", "branch", "data@follow", "--raw", show=lambda out: first(out)["trigger"])
    pach("delete", "repo", "-f", "data")
    pach("inspect", "repo", "data", means="not found")


def test_pipelines_and_jobs(engine, t, tmp_path):
    pach = engine.pachctl
    pach("create", "repo", "data")
    pach("put", "file", "data@master:/a", stdin="x")
    spec = {
        "pipeline": {"name": "p"},
        "input": {"pfs": {"repo": "data", "glob": "/*"}},
        "transform": {"image": engine.image, "cmd": ["/bin/sh"], "stdin": ["cp /pfs/data/* /pfs/out/"]},
        "resource_requests": {"cpu": 0.01, "memory": "64Mi"},
        "sidecar_resource_requests": {"cpu": 0.01, "memory": "64Mi"},
    }
    file = tmp_path / "p.json"
    file.write_text(json.dumps(spec))
    engine.transcript.names[str(tmp_path)] = "FOLDER"
    pach("create", "pipeline", "-f", str(file))
    pach("create", "pipeline", "-f", str(file), means="already exists")
    job = engine.newest("p")
    engine.transcript.names[job.job.id] = "JOB"
    pach("inspect", "job", f"p@{job.job.id}", "--raw", show=lambda out: [first(out)["state"], first(out)["data_total"]])
    pach("list", "job", "-p", "p", "--raw", show=lambda out: first(out)["state"])
    pach("list", "datum", f"p@{job.job.id}", show=lambda out: [line.split()[:3:2] for line in out.splitlines()[1:]])
    pach("get", "file", "p@master:/a")
    pach("list", "pipeline", show=lambda out: [line.split()[0] for line in out.splitlines()])
    pach("inspect", "pipeline", "p", "--raw", show=lambda out: [first(out)["version"], first(out)["details"]["output_branch"]])
    pach("update", "pipeline", "-f", str(file), "--reprocess")
    engine.newest("p")
    pach("inspect", "pipeline", "p", "--raw", show=lambda out: first(out)["version"])
    pach("stop", "pipeline", "p")
    pach("start", "pipeline", "p")
    engine.newest("p")
    pach("delete", "repo", "data", means="provenance")
    pach("delete", "pipeline", "p")
    pach("inspect", "pipeline", "p", means="not found")
    template = tmp_path / "t.jsonnet"
    template.write_text("function(name) " + json.dumps(spec).replace('"p"', "name"))
    pach("create", "pipeline", "--jsonnet", str(template), "--arg", "name=made")
    pach("list", "pipeline", show=lambda out: [line.split()[0] for line in out.splitlines()])
    yaml = tmp_path / "p.yaml"
    yaml.write_text("\n---\n".join(json.dumps({**spec, "pipeline": {"name": name}}) for name in ("one", "two")))
    pach("create", "pipeline", "-f", str(yaml))
    pach("list", "pipeline", show=lambda out: sorted(line.split()[0] for line in out.splitlines()))
