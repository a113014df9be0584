"""The whole flow with real programs: git, jobs, trials, archives, services. And the wrong ways."""

import json
import shutil
import subprocess
import sys

import pytest
import requests
import yaml
from determined.experimental import Determined
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from conftest import CHECKOUT, wait_until
from flow.material import commit_all, deploy_spec, git_repo, train_spec
from pdk.engines.pachyderm import Pachyderm
from pdk.errors import PdkError

PICTURES = CHECKOUT / "sample-data" / "more-dogs-and-cats"


class Flow:
    """A project with a data repo, a train and a deploy pipeline."""

    def __init__(self, up, name, code):
        self.up, self.name, self.code = up, name, code
        self.engine = Pachyderm("127.0.0.1", up.installation.ports.pachyderm)
        self.engine.create_project(name)
        self.engine.create_repo(name, "data")

    def pipelines(self, url, ref, **more):
        self.engine.create_pipeline(
            {**train_spec("train", "data", self.name, url, ref, model=self.name, **more), "pipeline": self.pipeline("train")}
        )
        self.engine.create_pipeline({**deploy_spec("deploy", "train", self.name), "pipeline": self.pipeline("deploy")})

    def pipeline(self, name):
        return {"name": name, "project": {"name": self.name}}

    def put(self, files, path="/data1"):
        found = {f"{path}/{file.parent.name}/{file.name}": file for file in files}
        return self.engine.put_files(self.name, "data", "master", found)

    def wait(self, pipeline, commit, timeout=120):
        def ended():
            try:
                job = self.engine.job(self.name, pipeline, commit)
            except PdkError:
                return None
            return job if job.ended else None

        return wait_until(ended, timeout, f"the end of job {pipeline}@{commit}")

    def log(self, pipeline, commit):
        return "\n".join(line.text for line in self.engine.logs(self.name, pipeline, commit))

    def run(self, commit):
        """What `pdk inspect run` says: exit code 1 where something is red."""
        words = [sys.executable, "-m", "pdk.cli.main", "inspect", "run", commit, "--project", self.name, "-o", "json"]
        done = subprocess.run(words, env=self.up.env, capture_output=True, text=True, check=False)
        run = json.loads(done.stdout)
        assert done.returncode == (1 if run["cause"] else 0), done.stderr
        return {**run, "states": {step["name"]: step["state"] for step in run["steps"]}}

    def versions(self):
        installation = self.up.installation
        sdk = Determined(master=f"http://127.0.0.1:{installation.ports.determined}", user="determined", password=installation.secret())
        return sdk.get_model(self.name).list_versions()


@pytest.fixture
def flow(up, name, tmp_path, request):
    # git repositories must lie where `pdk up` was told to look
    code = up.state.parent / name
    code.mkdir()
    return Flow(up, name, code)


def pictures(count):
    return [file for kind in ("cats", "dogs") for file in sorted((PICTURES / kind).glob("*.jpg"))[:count]]


def trace(flow, what):
    """What `pdk trace` says."""
    done = subprocess.run([sys.executable, "-m", "pdk.cli.main", "trace", what, "-o", "json"], env=flow.up.env, capture_output=True,
                          text=True, check=False)  # fmt: skip
    return json.loads(done.stdout) if done.returncode == 0 else None


def test_train_deploy_increment_and_revert(flow, tmp_path):
    sha = git_repo(flow.code)
    flow.pipelines(flow.code, "main")
    (tmp_path / "notes").mkdir()
    junk = [tmp_path / "notes" / ".DS_Store", tmp_path / "notes" / "cat-readme.txt", tmp_path / "notes" / "cat.broken.jpg"]
    for file in junk:
        file.write_bytes(b"\0\1\2")
    first = flow.put([*pictures(6), *junk])
    job = flow.wait("train", first)
    assert job.state == "SUCCESS", job.reason
    log = flow.log("train", first)
    assert "12 used, 2 files are no pictures, 0 say neither cat nor dog, 1 cannot be read" in log
    assert "cat.broken.jpg: the data is not a picture" in log
    assert flow.wait("deploy", first).state == "SUCCESS", flow.log("deploy", first)
    info = yaml.safe_load(flow.engine.read(flow.name, "train", first, "/model-info.yaml"))
    assert (info["name"], info["version"], info["pipeline"], info["repo"]) == (flow.name, first, "train", "data")
    assert info["provenance"]["code"]["sha"] == sha
    assert info["provenance"]["data"]["commit"] == first
    assert flow.engine.read(flow.name, "train", first, "/checkpoint/state_dict.pth")
    url = f"http://127.0.0.1:{flow.up.installation.ports.gateway}/v1/models/{flow.name}:predict"
    body = (CHECKOUT / "sample-data" / "requests" / "cat.json").read_bytes()
    answer = requests.post(url, data=body, headers={"Host": f"{flow.name}.models.example.com"}, timeout=30)
    assert answer.json()["predictions"] in ([0], [1])
    named = {"pdk-model-version": first, "pdk-data-commit": first, "pdk-code-sha": sha}
    assert {key: answer.headers[key] for key in named} == named
    run = wait_until(lambda: (found := flow.run(first))["states"]["predict"] == "ok" and found, 20, "the request in the log")
    assert (run["state"], run["cause"], run["experiment"] > 0, run["model"]) == ("ok", None, True, flow.name)
    assert run["states"] == dict.fromkeys(("commit", "train", "archive", "serve", "predict"), "ok")
    assert all(step["seconds"] >= 0 for step in run["steps"][:4])
    assert run["services"] == [f"models/{flow.name}"]
    # a few more: trained on from the first version, on the difference alone
    second = flow.put(pictures(9)[6:9] + pictures(9)[15:], "/data2")
    assert flow.wait("train", second).state == "SUCCESS", flow.log("train", second)
    log = flow.log("train", second)
    assert f"going on from version {first} on the 6 files added" in log
    assert "pictures: 6 used" in log
    assert flow.wait("deploy", second).state == "SUCCESS", flow.log("deploy", second)
    # a file changes: everything again, with the reason
    changed = flow.engine.put_files(flow.name, "data", "master", {"/data2/cats/" + pictures(9)[6].name: pictures(9)[0]})
    assert flow.wait("train", changed).state == "SUCCESS"
    assert "training on everything" in flow.log("train", changed)
    # back to the first commit's data: nothing is trained, its checkpoint is served again
    before = len(flow.versions())
    repo = pfs.Repo(name="data", type="user", project=pfs.Project(name=flow.name))
    Client(port=flow.up.installation.ports.pachyderm).pfs.create_branch(
        branch=pfs.Branch(repo=repo, name="master"), head=pfs.Commit(repo=repo, id=first)
    )
    newest = wait_until(
        lambda: next(
            (
                j
                for j in flow.engine.jobs(flow.name, "deploy")
                if j.id not in (first, second, changed)
                and j.ended
                and j.started
                and j.started > flow.engine.job(flow.name, "deploy", changed).started
            ),
            None,
        ),
        60,
    )
    assert newest.state == "SUCCESS", newest.reason
    assert "were trained already" in flow.log("train", newest.id)
    assert "it was made before, and is served again" in flow.log("deploy", newest.id)
    answer = requests.post(url, data=body, headers={"Host": f"{flow.name}.models.example.com"}, timeout=30)
    assert {key: answer.headers[key] for key in named} == named  # the first version, by its own name
    (chain,) = wait_until(lambda: trace(flow, answer.headers["x-request-id"]), 10, "the request in the log")
    assert (chain["request"]["code"], chain["version"], chain["data"]["commit"], chain["data"]["count"]) == (200, first, first, 15)
    assert chain["code"]["sha"] == sha
    learned = trace(flow, first)
    assert [node["version"] for node in learned] == [newest.id, first]
    assert learned[0]["services"][0]["service"] == f"models/{flow.name}"
    assert sum(node["predictions"] for node in learned) == 2
    versions = flow.versions()
    assert len(versions) == before + 1
    listed = json.loads(flow.up.run("pdk", "list", "run", "--project", flow.name, "-o", "json"))
    assert [row["run"] for row in listed] == [f"train@{id_}" for id_ in (newest.id, changed, second, first)]
    assert {row["state"] for row in listed} == {"ok"}
    assert len(json.loads(flow.up.run("pdk", "list", "version", flow.name, "-o", "json"))) == len(versions)
    assert {v.name: v.checkpoint.uuid for v in versions}[newest.id] == {v.name: v.checkpoint.uuid for v in versions}[first]


@pytest.mark.parametrize(
    ("url", "ref", "more", "words"),
    [
        ("ftp://example.com/x.git", "main", {}, "only https and ssh"),
        ("--upload-pack=touch /tmp/x", "main", {}, "is not one"),
        ("/etc", "main", {}, "outside the allowed folders"),
        ("https://user:secret@example.com/x.git", "main", {}, "credential"),
        ("{code}", "no-such-branch", {}, "'no-such-branch' does not exist"),
        ("{code}", "main", {"sub_dir": "nowhere"}, "no folder 'nowhere'"),
        ("{code}", "main", {"config": "missing.yaml"}, "no config 'missing.yaml'"),
        ("{code}/experiment", "main", {}, "not a git repository"),
    ],
)
def test_wrong_code_ends_the_job_with_the_reason(flow, url, ref, more, words):
    git_repo(flow.code)
    flow.pipelines(url.format(code=flow.code), ref, **more)
    commit = flow.put(pictures(1))
    job = flow.wait("train", commit)
    assert job.state == "FAILURE"
    assert words in job.reason
    assert "Traceback" not in job.reason
    assert words in flow.up.run("pdk", "logs", f"train@{commit}", "--project", flow.name)
    assert flow.wait("deploy", commit).state == "UNRUNNABLE"
    run = flow.run(commit)
    assert words in run["cause"]["reason"]
    assert run["states"] == {"commit": "ok", "train": "failed", "archive": "waiting", "serve": "waiting", "predict": "waiting"}
    assert (run["cause"]["step"], run["cause"]["job"], run["cause"]["ended"]) == ("train", f"train@{commit}", "exit code 1")
    assert (run["cause"]["first_red"], run["cause"]["last_green"]) == (commit, "")


def edit(flow, file, change):
    git_repo(flow.code)
    path = flow.code / "experiment" / file
    path.write_text(change(path.read_text()))
    shutil.rmtree(flow.code / ".git")
    commit_all(flow.code)


@pytest.mark.parametrize(
    ("file", "old", "new", "step", "words", "place"),
    [
        ("const.yaml", "data:\n  pachyderm:", "data:\n  other:", "train", "lacks the mapping data.pachyderm", ""),
        ("const.yaml", "entrypoint:", "entrypoints:", "train", "unknown field 'entrypoints'", ""),
        (
            "model_def.py",
            "        x, y = batch\n        self._set_rate",
            "        raise RuntimeError('broken on purpose')\n        self._set_rate",
            "train",
            "RuntimeError: broken on purpose",
            "model_def.py:",
        ),
        (
            "handler.py",
            "import numpy as np\n",
            "import numpy as np\nif __name__ == 'handler' and 'pdk-deploy' in __file__:\n    import no_such_module\n",
            "deploy",
            "no_such_module",
            "",
        ),
    ],
)
def test_broken_experiments_end_the_job_with_the_reason(flow, file, old, new, step, words, place):
    edit(flow, file, lambda text: text.replace(old, new).replace("max_restarts: 1", "max_restarts: 0"))
    flow.pipelines(flow.code, "main")
    if file == "model_def.py":  # restarts only cost time here
        edit_restarts(flow)
    commit = flow.put(pictures(3))
    job = flow.wait(step, commit)
    assert job.state == "FAILURE", flow.log("train", commit)
    assert words in job.reason
    cause = flow.run(commit)["cause"]
    assert words in cause["reason"]
    assert cause["place"].startswith(place)
    assert bool(cause["place"]) == bool(place), cause
    assert cause["step"] == {"train": "train", "deploy": "archive"}[step]


def edit_restarts(flow):
    const = flow.code / "experiment" / "const.yaml"
    const.write_text(const.read_text().replace("max_restarts: 1", "max_restarts: 0"))
    shutil.rmtree(flow.code / ".git")
    commit_all(flow.code)


def test_a_commit_without_pictures_ends_the_job_with_the_reason(flow, tmp_path):
    git_repo(flow.code)
    flow.pipelines(flow.code, "main")
    text = tmp_path / "readme.txt"
    text.write_text("nothing to see")
    commit = flow.put([text])
    job = flow.wait("train", commit)
    assert job.state == "FAILURE"
    assert "no readable picture of a cat or dog" in job.reason
    good = flow.put(pictures(3))
    assert flow.wait("deploy", good).state == "SUCCESS", flow.log("deploy", good)
    # the pictures break: the cause says what is not as it was, and what serves meanwhile
    broken = {f"/data1/{file.parent.name}/{file.name}": text for file in pictures(3)}
    red = flow.engine.put_files(flow.name, "data", "master", broken)
    assert flow.wait("train", red).state == "FAILURE"
    again = flow.engine.put_files(flow.name, "data", "master", {"/more.txt": text})
    assert flow.wait("train", again).state == "FAILURE"
    cause = flow.run(again)["cause"]
    assert "no readable picture of a cat or dog" in cause["reason"]
    assert (cause["first_red"], cause["last_green"]) == (red, good)
    assert cause["differences"]["files"] == {"changed": 6}
    assert cause["differences"]["paths"] == [f"~ data:{path}" for path in sorted(broken)]
    assert cause["serves"] == [f"models/{flow.name}: version {good}"]
    assert cause["next"] == f"pdk logs train@{again} --project {flow.name}"


def test_an_unreachable_engine_is_named(flow):
    git_repo(flow.code)
    spec = train_spec("train", "data", flow.name, flow.code, "main", model=flow.name)
    spec["pipeline"] = flow.pipeline("train")
    spec["transform"]["stdin"] = ["DET_MASTER=http://127.0.0.1:9 " + spec["transform"]["stdin"][0]]
    flow.engine.create_pipeline(spec)
    job = flow.wait("train", flow.put(pictures(1)))
    assert job.state == "FAILURE"
    assert "Determined at http://127.0.0.1:9 does not answer" in job.reason


def test_secrets_are_nowhere(up):
    secret = up.installation.secret()
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert secret not in listed
    for log in [*up.state.rglob("log"), up.state / "up.log"]:
        assert secret.encode() not in log.read_bytes(), log
    assert json.loads((up.state / "up.json").read_text()).keys().isdisjoint({"secret", "token"})
    open_files = [
        path for path in up.state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077 and secret.encode() in path.read_bytes()
    ]
    assert not open_files
    assert up.state.stat().st_mode & 0o077 == 0
