"""The engine that the cases run against: this project's server, or with ``--engine testbed`` the real Pachyderm.

``make conformance`` runs the cases on the real engine and writes what it answered; everywhere else that record is compared with.
"""

import json
import os
import shutil
import uuid
from functools import partial
from pathlib import Path

import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps
from syrupy.extensions.json import JSONSnapshotExtension

from recorded.transcript import Transcript, run_pachctl


class Engine:
    """Clients of an engine, and a project of the case's own."""

    def __init__(self, host, port, env, pachctl, image):
        self.host, self.port, self.env, self.image = host, port, env, image
        self.sdk = Client(host=host, port=port)
        self.program = pachctl
        self.project = f"p{uuid.uuid4().hex[:8]}"
        self.transcript = Transcript({self.project: "PROJECT", image: "IMAGE"})
        self.sdk.pfs.create_project(project=pfs.Project(name=self.project))

    # names

    def repo(self, name="data", kind="user"):
        return pfs.Repo(name=name, type=kind, project=pfs.Project(name=self.project))

    def branch(self, name="master", repo="data"):
        return pfs.Branch(repo=self.repo(repo), name=name)

    def commit(self, id_="", repo="data", branch=None):
        return pfs.Commit(repo=self.repo(repo), id=id_, branch=self.branch(branch, repo) if branch else None)

    def file(self, path, id_="", repo="data", branch=None):
        return pfs.File(commit=self.commit(id_, repo, branch or (None if id_ else "master")), path=path)

    def job(self, pipeline, id_):
        return pps.Job(pipeline=self.pipeline(pipeline), id=id_)

    def pipeline(self, name):
        return pps.Pipeline(name=name, project=pfs.Project(name=self.project))

    # set-up that is no step

    def make_repo(self, *names):
        for name in names or ("data",):
            self.sdk.pfs.create_repo(repo=self.repo(name))

    def put(self, files, repo="data", branch="master", *, append=False):
        """One finished commit with files (None deletes); its ID."""
        self.sdk.pfs.modify_file(self.changes(files, pfs.Commit(repo=self.repo(repo), branch=self.branch(branch, repo)), append=append))
        head = self.sdk.pfs.inspect_branch(branch=self.branch(branch, repo)).head
        self.sdk.pfs.inspect_commit(commit=head, wait=pfs.CommitState.FINISHED)
        return head.id

    def changes(self, files, target=None, *, append=False):
        """The requests that write files; None deletes."""
        if target is not None:
            yield pfs.ModifyFileRequest(set_commit=target)
        for path, content in files.items():
            if not append:
                yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path))
            if content is not None:
                yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=content))

    def make_pipeline(self, name, script, source, **more):
        """A pipeline that runs `script` with sh; `source` is its input as in a spec."""
        spec = {
            "pipeline": {"name": name, "project": {"name": self.project}},
            "transform": {"image": self.image, "cmd": ["/bin/sh"], "stdin": [script], **more.pop("transform", {})},
            "input": source,
            "resource_requests": {"cpu": 0.01, "memory": "64Mi"},
            "sidecar_resource_requests": {"cpu": 0.01, "memory": "64Mi"},
            **more,
        }
        update, reprocess = spec.pop("update", False), spec.pop("reprocess", False)
        self.sdk.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec), update=update, reprocess=reprocess)

    def finished(self, pipeline, id_):
        """The job, ended."""
        return self.sdk.pps.inspect_job(job=self.job(pipeline, id_), wait=True, details=True)

    def newest(self, pipeline):
        """The newest job of a pipeline, ended."""
        for info in self.sdk.pps.list_job(pipeline=self.pipeline(pipeline)):
            return self.finished(pipeline, info.job.id)
        return pytest.fail(f"pipeline {pipeline} has no job")

    def read(self, repo, path, id_="", branch="master"):
        """A file's content."""
        with self.sdk.pfs.pfs_file(file=self.file(path, id_, repo, None if id_ else branch)) as source:
            return source.read()

    def pachctl(self, *words, stdin=None, means="", show=None, local=True):
        """A step that runs pachctl in the case's project."""
        if self.program is None:
            pytest.skip("pachctl is not installed here")
        more = ("--project", self.project) if local else ()
        return self.transcript.pachctl(partial(run_pachctl, self.program, self.env), [*words, *more], stdin=stdin, means=means, show=show)

    def close(self):
        """Remove what the case made."""
        self.sdk.pps.delete_pipelines(projects=[pfs.Project(name=self.project)], force=True)


@pytest.fixture
def engine(request, tmp_path):
    if request.config.getoption("--engine") == "testbed":
        host, port, image = os.environ["PACHD_PEER_SERVICE_HOST"], int(os.environ["PACHD_PEER_SERVICE_PORT"]), "pdk.local/base:1"
        env, pachctl = dict(os.environ), "pachctl"
    else:
        up = request.getfixturevalue("up")
        host, port, image, env = "127.0.0.1", up.installation.ports.pachyderm, "pdk/train:0.1", up.env
        built = Path.home() / ".cache/pdk-testbed/bin/pachctl"
        pachctl = shutil.which("pachctl") or (str(built) if built.exists() else None)
    made = Engine(host, port, env, pachctl, image)
    yield made
    made.close()


@pytest.fixture
def recorded(engine, snapshot, request):
    """After the case: its transcript is what the real engine answered."""
    yield
    if not request.node.stash.get(FAILED, False):
        assert engine.transcript.steps == snapshot(extension_class=JSONSnapshotExtension, name="steps")


FAILED = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call" and outcome.get_result().failed:
        item.stash[FAILED] = True
