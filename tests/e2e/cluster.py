"""A cluster of the real engines (the testbed's), set up as a guide's overlay does it, and the flow on it by its users' commands.

Determined is the local server, bound to the node's address with its login on, or the master that DET_MASTER names. The testbed starts
one where DETERMINED_MASTER names its binary; its tasks run in an image of their own:
``testbed image-build pdk.local/experiment:1 . -f containers/experiment/Dockerfile``.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from conftest import CHECKOUT, wait_until
from flow.material import commit_all, examples, template_words
from flow.ssh import ssh_server
from pdk.demo import DATA, DEPLOY, HOST, MODEL, PREDICT, PROJECT
from pdk.environment import named_determined
from pdk.installation import Installation

NODE = "10.77.0.1"
MASTER_PORT = 8180
CHECKPOINTS = "/var/lib/pdk-testbed/checkpoints"  # of a real master there: a folder of the node
FEW = CHECKOUT / "sample-data" / "more-dogs-and-cats"
TEMPLATE = CHECKOUT / "pipelines" / "pipelines.jsonnet"
ANYBODY = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}  # to Pachyderm's S3 gateway without authentication
RATE = 10  # requests a second that run through a rollout


def marked(kind):
    """The blocks of the on-prem guide that are run here, by their mark: testbed, or testbed: auth."""
    return re.findall(rf"<!-- {kind} -->\n```bash\n(.*?)```", (CHECKOUT / "deploy/on-prem/README.md").read_text(), re.DOTALL)


def run(*words, check=True, stdin=None, timeout=600):
    """Run a client; its output, standard error included."""
    done = subprocess.run(words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        pytest.fail(f"{' '.join(words)} exited {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


@dataclass
class Master:
    """A Determined that pods of the cluster reach."""

    url: str
    user: str
    password: str
    shared: str = ""  # folder of the nodes that holds its checkpoints; the local server hands them out itself
    state: Path | None = None
    process: subprocess.Popen | None = None

    def start(self):
        """The local server, on the node's address."""
        words = [sys.executable, "-m", "pdk.cli.main", "up", "--only", "determined", "--state", str(self.state), "--bind", NODE,
                 "--port", f"determined={MASTER_PORT}"]  # fmt: skip
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.answers, 60, "the Determined server")
        self.password = Installation.load(self.state).secret()
        return self

    @classmethod
    def named(cls, state):
        """The one that DET_MASTER names, else the local server with its state in `state`."""
        if named := named_determined():
            return cls(*named, CHECKPOINTS)
        return cls(f"http://{NODE}:{MASTER_PORT}", "determined", "", state=state).start()

    def answers(self):
        assert self.process is None or self.process.poll() is None, (self.state / "log").read_text()
        try:
            return requests.get(f"{self.url}/info", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


@dataclass
class Code:
    """A git repository behind SSH, as pods reach it."""

    folder: Path
    url: str
    key: str
    known_hosts: str

    def branch(self, branch, name, old, new):
        """A branch on which a file of the experiment is changed."""
        run("git", "-C", str(self.folder), "checkout", "-q", "-B", branch, "main")
        path = self.folder / "experiments" / "dogs-and-cats" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        commit_all(self.folder)
        run("git", "-C", str(self.folder), "checkout", "-q", "main")


@contextlib.contextmanager
def served_code(folder):
    """The examples' experiments in a repository of their own in `folder`, served by sshd on the node's address."""
    examples(folder)
    with ssh_server(NODE) as (port, home):
        known = f"[{NODE}]:{port} {(home / 'host.pub').read_text()}"
        yield Code(folder, f"ssh://root@{NODE}:{port}{folder}", (home / "client").read_text(), known)


def set_up(folder, master, code):
    """What deploy/testbed sets up, with this run's secrets; returns the overlay's own copy."""
    shutil.copytree(CHECKOUT / "deploy", folder)
    write_env(folder / "testbed" / "pachyderm-s3.env", ANYBODY)
    apply_overlay(folder, master)
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "git", "namespace": "default"},
        "stringData": {"git_ssh_key": code.key, "git_known_hosts": code.known_hosts},
    }  # fmt: skip
    run("kubectl", "apply", "-f", "-", stdin=json.dumps(secret))
    return folder


def write_env(path, values):
    """A file of KEY=VALUE, as kustomize reads it."""
    path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))


def apply_overlay(folder, master, **changes):
    """Write the secrets' files as the guide says, and apply."""
    values = {"det_master": master.url, "det_user": master.user, "det_password": master.password, "pac_token": "",
              "pachd_lb_service_host": "10.96.0.50", "pachd_lb_service_port": "30650", "kserve_namespace": "models", **changes}  # fmt: skip
    write_env(folder / "testbed" / "pipeline-secret.env", values)
    config = folder / "testbed" / "pdk-config.env"
    config.write_text(config.read_text().replace(str(MASTER_PORT), master.url.rpartition(":")[2]))
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    write_env(folder / "testbed" / "model-store.env", keys)
    return run("kubectl", "apply", "-k", str(folder / "testbed"))


STORES = {
    "pachyderm": {"target": "on-prem"},
    "aws": {"target": "aws", "bucket": "models", "storeSecret": "model-store", "serviceAccount": "s3-reader",
            "storeEndpoint": f"http://{NODE}:9000"},
    "gcp": {"target": "gcp", "bucket": "models", "storeEndpoint": f"http://{NODE}:9001"},
}  # fmt: skip


def documents(text):
    """The JSON documents of a client's output, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


class Logs(threading.Thread):
    """Follows what a pipeline's pods print: Pachyderm removes a pod as soon as its job has ended."""

    def __init__(self, pipeline):
        super().__init__(daemon=True)
        self.words = ["kubectl", "logs", "-f", "-l", f"pipelineName={pipeline}", "-c", "user", "--tail", "-1", "--ignore-errors"]
        self.lines, self._process, self._end = {}, None, threading.Event()

    def run(self):
        while not self._end.is_set():
            with subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as self._process:
                for line in self._process.stdout:
                    self.lines[line] = None  # once each: a pod that is followed again starts over
            self._end.wait(0.5)

    def finish(self):
        self._end.set()
        if self._process is not None:
            self._process.terminate()
        self.join()

    def text(self):
        """The messages, without what the worker adds to them."""
        found = []
        for line in list(self.lines):
            match = re.search(r'"message":("(?:[^"\\]|\\.)*")', line)
            found.append(json.loads(match[1]) if match else line.rstrip())
        return "\n".join(found)


@dataclass
class Flow:
    """The dogs-and-cats example on the cluster, by pachctl, kubectl and curl."""

    ingress: str
    code: Code
    master: Master
    arguments: dict = field(default_factory=dict)
    logs: dict = field(default_factory=dict)

    def create(self, *, update=False, **changes):
        """Project, repo and pipelines."""
        if not update:
            run("pachctl", "create", "project", PROJECT)
            run("pachctl", "create", "repo", DATA, "--project", PROJECT)
            run("pachctl", "config", "update", "context", "--project", PROJECT)
        values = {"example": "dogs-and-cats", "registry": "pdk.local", "gitUrl": self.code.url, "gitRef": "main", "gitSecret": "git",
                  "sharedFolder": self.master.shared, **self.arguments, **changes}  # fmt: skip
        run("pachctl", "update" if update else "create", "pipeline", "--jsonnet", str(TEMPLATE), *template_words(values))

    def put(self, source, path):
        """Commit a picture or a folder of pictures; returns the commit's ID."""
        run("pachctl", "put", "file", f"{DATA}@master:{path}", *(["-r"] if source.is_dir() else []), "-f", str(source))
        return self.head()

    def head(self):
        return json.loads(run("pachctl", "inspect", "commit", f"{DATA}@master", "--raw"))["commit"]["id"]

    def jobs(self, pipeline):
        """The IDs of its jobs, newest first."""
        found = run("pachctl", "list", "job", "--pipeline", pipeline, "--raw")
        return [entry["job"]["id"] for entry in documents(found)]

    def job(self, pipeline, commit, timeout=600):
        """The job of a commit, once it has ended: (state, reason)."""

        def ended():
            said = run("pachctl", "wait", "job", f"{pipeline}@{commit}", "--raw", check=False, timeout=timeout)
            return json.loads(said) if said.startswith("{") else None  # there is no job yet

        job = wait_until(ended, timeout, f"the end of job {pipeline}@{commit}")
        return job["state"], job.get("reason", "")

    def first_failure(self, pipeline, green):
        """The first job of a pipeline that failed after a green one: an update runs the new code on data that was there already."""
        words = ("pachctl", "list", "job", "--pipeline", pipeline, "--project", PROJECT, "--history", "all", "--raw")
        text, jobs = run(*words).strip(), []
        while text:
            job, end = json.JSONDecoder().raw_decode(text)
            text = text[end:].lstrip()
            jobs.append(job)
        later = itertools.takewhile(lambda job: job["job"]["id"] != green, jobs)
        return [job["job"]["id"] for job in later if job["state"] == "JOB_FAILURE"][-1]

    def log(self, pipeline):
        """What the pipeline's pods have printed."""
        return self.logs[pipeline].text()

    def both(self, commit):
        """Wait for the train and the deploy job of a commit; fails with their logs."""
        for name in (MODEL, DEPLOY):
            state, reason = self.job(name, commit)
            assert state == "JOB_SUCCESS", f"{name}: {reason}\n{self.log(name)[-4000:]}"

    def predict(self, kind):
        """The guide's curl: status, version that answered, prediction."""
        body = CHECKOUT / "sample-data" / "requests" / f"{kind}.json"
        said = run("curl", "-s", "-i", "-H", f"Host: {HOST}", f"{self.ingress}{PREDICT}", "-d", f"@{body}")
        head, _, answer = said.replace("\r", "").rpartition("\n\n")
        version = re.search(r"(?im)^pdk-model-version: (\S+)", head)
        return head.split()[1], version[1] if version else "", answer.strip()

    def is_right(self):
        assert self.predict("cat")[0::2] == ("200", '{"predictions":[1]}')
        assert self.predict("dog")[0::2] == ("200", '{"predictions":[0]}')

    def seen(self, commit):
        """What `pdk inspect run` says of a commit."""
        master = {"DET_MASTER": self.master.url, "DET_USER": self.master.user, "DET_PASS": self.master.password}
        words = [sys.executable, "-m", "pdk.cli.main", "inspect", "run", commit, "--project", PROJECT, "-o", "json"]
        done = subprocess.run(words, env={**os.environ, **master}, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        return {**found, "states": {step["name"]: step["state"] for step in found["steps"]}}

    def serves(self, version, timeout=60):
        wait_until(lambda: self.predict("cat")[1] == version, timeout, f"version {version} answering")

    @contextlib.contextmanager
    def watched(self):
        """Nothing made yet, with the logs of what will be; all is removed at the end."""
        self.delete()
        self.logs = {name: Logs(name) for name in (MODEL, DEPLOY)}
        for log in self.logs.values():
            log.start()
        try:
            yield self
        finally:
            for log in self.logs.values():
                log.finish()
            self.delete()

    def delete(self):
        """Everything that the example made in Pachyderm and KServe."""
        run("kubectl", "delete", "isvc", "dog-cat", "-n", "models", "--ignore-not-found", "--wait")
        if PROJECT in run("pachctl", "list", "project"):
            run("pachctl", "config", "update", "context", "--project", PROJECT)
            run("pachctl", "delete", "pipeline", "--all", "--force", check=False)
            run("pachctl", "delete", "repo", "--all", "--force", check=False)
            run("pachctl", "delete", "project", PROJECT, "--force", stdin="y\n", check=False)
        run("pachctl", "config", "update", "context", "--project", "default")


class Load(threading.Thread):
    """Requests at a steady pace; answers by version, and failures."""

    def __init__(self, ingress):
        super().__init__(daemon=True)
        self.url, self.answers, self.failures, self._end = f"{ingress}{PREDICT}", {}, [], threading.Event()
        self.body = (CHECKOUT / "sample-data/requests/cat.json").read_bytes()

    def run(self):
        following = time.monotonic()
        while not self._end.is_set():
            try:
                answer = requests.post(self.url, self.body, headers={"Host": HOST}, timeout=30)
                if answer.status_code == 200:
                    version = answer.headers["pdk-model-version"]
                    self.answers[version] = self.answers.get(version, 0) + 1
                else:
                    self.failures.append((answer.status_code, answer.text[:200]))
            except requests.RequestException as error:
                self.failures.append((0, str(error)))
            following += 1 / RATE
            self._end.wait(max(0.0, following - time.monotonic()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()
