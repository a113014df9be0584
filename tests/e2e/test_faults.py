"""What goes wrong on a cluster: the job ends rightly or fails with the reason, and what is tried again leaves no duplicate."""

import contextlib
import http.client
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import wait_until
from e2e.cluster import FEW, NODE, STORES, apply_overlay, run
from pdk.demo import DEPLOY, MODEL

pytestmark = pytest.mark.timeout(900)


def registered(master, commit):
    """How many versions are named by a commit."""
    from determined.experimental import Determined

    found = Determined(master=master.url, user=master.user, password=master.password).get_model("dogs-and-cats").list_versions()
    return [version.name for version in found].count(commit)


def generation(name="dog-cat"):
    """How often the InferenceService's spec was written."""
    return json.loads(run("kubectl", "-n", "models", "get", "isvc", name, "-o", "json"))["metadata"]["generation"]


def test_pachd_is_restarted_while_a_job_runs(quick, master):
    quick.create()
    commit = quick.put(FEW, "/data1")
    wait_until(lambda: "experiment" in quick.log(MODEL) and "was created" in quick.log(MODEL), 120, "the experiment")
    run("kubectl", "delete", "pod", "-l", "app=pachd", "--now")
    run("kubectl", "rollout", "status", "deploy/pachd", "--timeout=120s")
    wait_until(lambda: "COMPONENT" in run("pachctl", "version", check=False), 120, "pachd")
    quick.both(commit)
    assert registered(master, commit) == 1
    quick.serves(commit)


def test_the_controller_of_kserve_is_away_during_a_deploy(quick, master):
    quick.create()
    with scaled_down("kserve-controller-manager", "kserve"):
        commit = quick.put(FEW, "/data1")
        assert quick.job(MODEL, commit)[0] == "JOB_SUCCESS", quick.log(MODEL)
        wait_until(lambda: "model store: s3://" in quick.log(DEPLOY), 120, "the archive")
    quick.both(commit)
    assert (registered(master, commit), generation()) == (1, 1)
    quick.serves(commit)


@contextlib.contextmanager
def scaled_down(deployment, namespace):
    """No pod of a Deployment, for a while."""
    run("kubectl", "-n", namespace, "scale", f"deploy/{deployment}", "--replicas=0")
    run("kubectl", "-n", namespace, "wait", "--for=delete", "pod", "-l", "control-plane=kserve-controller-manager", "--timeout=60s")
    try:
        yield
    finally:
        run("kubectl", "-n", namespace, "scale", f"deploy/{deployment}", "--replicas=1")
        run("kubectl", "-n", namespace, "rollout", "status", f"deploy/{deployment}", "--timeout=120s")


class Busy(BaseHTTPRequestHandler):
    """In front of the S3 store: 503 for a minute from the first request, then all is passed on as it is."""

    began: float | None = None
    refused = 0
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = type(self)
        kind.began = kind.began or time.monotonic()
        if time.monotonic() - kind.began < 60:
            kind.refused += 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        there = http.client.HTTPConnection(NODE, 9000, timeout=60)
        there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            there.putheader(name, value)
        there.endheaders(body)
        said = there.getresponse()
        content = said.read()
        self.send_response(said.status)
        for name, value in said.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        length = said.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, *_):
        pass


def test_the_model_store_answers_503_for_a_minute(quick, master):
    server = ThreadingHTTPServer((NODE, 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        quick.arguments |= {**STORES["aws"], "storeEndpoint": f"http://{NODE}:{server.server_port}"}
        quick.create()
        commit = quick.put(FEW, "/data1")
        quick.both(commit)
        assert Busy.refused > 2
        assert (registered(master, commit), generation()) == (1, 1)
        quick.serves(commit)
    finally:
        server.shutdown()
        server.server_close()


def test_no_node_has_room(quick, master):
    quick.create(requests="memory=900Gi", limits="memory=900Gi", deployFlags="--timeout 20")
    commit = quick.put(FEW, "/data1")
    assert quick.job(DEPLOY, commit)[0] == "JOB_FAILURE"
    said = quick.log(DEPLOY)
    assert "has no node" in said, said
    assert "Insufficient memory" in said, said
    quick.create(update=True)  # with what fits; the same version is tried again
    again = wait_until(lambda: next((job for job in quick.jobs(DEPLOY) if job != commit), None), 60, "the next job")
    assert quick.job(DEPLOY, again)[0] == "JOB_SUCCESS", quick.log(DEPLOY)
    assert registered(master, commit) == 1
    quick.serves(commit)


def test_a_password_that_is_no_longer_right(quick, master, cluster):
    apply_overlay(cluster, master, det_password="Expired1")
    try:
        quick.create()
        commit = quick.put(FEW, "/data1")
        assert quick.job(MODEL, commit)[0] == "JOB_FAILURE"
        assert "refuses the login" in quick.log(MODEL), quick.log(MODEL)
    finally:
        apply_overlay(cluster, master)
    run("pachctl", "rerun", "pipeline", MODEL, "--reprocess")
    again = wait_until(lambda: next((job for job in quick.jobs(MODEL) if job != commit), None), 60, "the next job")
    quick.both(again)
    assert registered(master, again) == 1
    quick.serves(again)
