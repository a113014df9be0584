"""The local Pachyderm server beside the real one: ``python bench/pachyderm.py`` writes bench/results/pachyderm.json.

Where the testbed runs, start it inside (``testbed exec .venv/bin/python bench/pachyderm.py``): then every row that has a peer is measured
on both, turn by turn, medians of `ROUNDS`. Elsewhere those rows have no peer.
"""

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from importlib import metadata
from pathlib import Path

import grpc
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from pdk.installation import Installation
from pdk.local.up import environment

ROUNDS = 5
BUILT = Path.home() / ".cache/pdk-testbed/bin/pachctl"
PACHCTL = shutil.which("pachctl") or str(BUILT)


class Local:
    """`pdk up --only pachyderm` in a folder of its own."""

    def __init__(self, folder):
        self.state = Path(folder) / "state"
        self.process = None
        self.start()

    def start(self):
        """Start the server; seconds until its first answer."""
        began = time.monotonic()
        words = [sys.executable, "-m", "pdk.cli.main", "up", "--only", "pachyderm", "--state", str(self.state)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(Exception):
                self.client().get_version()
                return time.monotonic() - began

    @property
    def installation(self):
        return Installation.load(self.state)

    @property
    def env(self):
        return {key: value for key, value in {**os.environ, **environment(self.installation)}.items() if key != "PACHD_ADDRESS"}

    def client(self):
        return Client(host="127.0.0.1", port=self.installation.ports.pachyderm)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def memory(self):
        """Resident bytes of the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024

    def written(self):
        """Bytes that the server has written: to its database, the store and its clients."""
        lines = Path(f"/proc/{self.process.pid}/io").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


class Peer:
    """The real pachd of the testbed."""

    env = os.environ

    def client(self):
        return Client(host=os.environ["PACHD_PEER_SERVICE_HOST"], port=int(os.environ["PACHD_PEER_SERVICE_PORT"]))


def seconds(words, env, cwd=None):
    """How long a command takes."""
    began = time.monotonic()
    subprocess.run(words, env=env, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def make_files(folder, count, size):
    """`count` files of `size` random bytes."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:06}").write_bytes(os.urandom(size))


def interleaved(ours, peer, work):
    """Medians of `work(engine)`, turn by turn."""
    found = {True: [], False: []}
    for _ in range(ROUNDS):
        found[True].append(work(ours))
        if peer:
            found[False].append(work(peer))
    return statistics.median(found[True]), statistics.median(found[False]) if peer else None


def new_repo(engine):
    name = f"b{uuid.uuid4().hex[:10]}"
    engine.client().pfs.create_repo(repo=pfs.Repo(name=name, type="user", project=pfs.Project(name="default")))
    return name


def head_finished(engine, repo):
    client = engine.client()
    branch = pfs.Branch(repo=pfs.Repo(name=repo, type="user", project=pfs.Project(name="default")), name="master")
    client.pfs.inspect_commit(commit=client.pfs.inspect_branch(branch=branch).head, wait=pfs.CommitState.FINISHED)


class Rows(list):
    """Rows of the result."""

    def add(self, case, unit, ours, peer, goal, *, limit=None, more_is_better=False):
        """A row; with `limit` the ratio is to that."""
        ratio = None
        if limit is not None:
            ratio = limit / ours
        elif peer is not None:
            ratio = ours / peer if more_is_better else peer / ours
        shown = [None if value is None else round(value, 4) for value in (ours, peer, ratio)]
        self.append({"case": case, "unit": unit, "ours": shown[0], "peer": shown[1], "ratio": shown[2], "goal": goal})
        print(json.dumps(self[-1]), flush=True)


def puts_and_gets(rows, ours, peer, folder):
    """Whole folders by pachctl and pdk."""
    for count, size, goal in ((2000, 20_000, 1.5), (10_000, 1000, 0.7)):
        source = folder / f"in-{count}"
        make_files(source, count, size)

        def put(engine, source=source):
            repo = new_repo(engine)
            return seconds([PACHCTL, "put", "file", f"{repo}@master:/", "-r", "-f", str(source)], engine.env)

        rows.add(f"put {count} x {size} B by pachctl", "s", *interleaved(ours, peer, put), goal)
    source = folder / "in-10000"

    def put_pdk(engine):
        repo = new_repo(engine)
        if engine is peer:
            return seconds([PACHCTL, "put", "file", f"{repo}@master:/", "-r", "-f", str(source)], engine.env)
        words = [
            sys.executable,
            "-m",
            "pdk.cli.main",
            "put",
            "file",
            f"{repo}@master:/",
            "-r",
            "-f",
            str(source),
            "--state",
            str(ours.state),
        ]
        return seconds(words, engine.env)

    rows.add("put 10000 x 1000 B by pdk (peer: pachctl)", "s", *interleaved(ours, peer, put_pdk), 1.3)
    filled = {}
    for engine in filter(None, (ours, peer)):
        filled[engine] = new_repo(engine)
        seconds([PACHCTL, "put", "file", f"{filled[engine]}@master:/", "-r", "-f", str(source)], engine.env)
        head_finished(engine, filled[engine])

    def get(engine):
        target = folder / f"out-{uuid.uuid4().hex}"
        taken = seconds([PACHCTL, "get", "file", f"{filled[engine]}@master:/", "-r", "-o", str(target)], engine.env)
        shutil.rmtree(target)
        return taken

    rows.add("get 10000 x 1000 B by pachctl", "s", *interleaved(ours, peer, get), 1.0)


def changes(files, repo):
    target = pfs.Repo(name=repo, type="user", project=pfs.Project(name="default"))
    yield pfs.ModifyFileRequest(set_commit=pfs.Commit(repo=target, branch=pfs.Branch(repo=target, name="master")))
    for path, content in files:
        yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path))
        yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=content))


def one_file(rows, ours, peer):
    """One file into a large repo and into an empty one."""
    large = {}
    for engine in filter(None, (ours, peer)):
        large[engine] = new_repo(engine)
        client = engine.client()
        many = ((f"/{number // 1000:03}/{number % 1000:03}", b"%d" % number) for number in range(100_000))
        client.pfs.modify_file(changes(many, large[engine]))
        head_finished(engine, large[engine])
    memory = ours.memory()
    clients = {engine: engine.client() for engine in large}

    def put(engine, repo=None):
        name = repo or large[engine]
        began = time.monotonic()
        clients[engine].pfs.modify_file(changes([(f"/one-{uuid.uuid4().hex}", b"x")], name))
        head_finished(engine, name)
        return time.monotonic() - began

    rows.add("one file into a repo of 100000 files", "s", *interleaved(ours, peer, put), 3)
    empty = new_repo(ours)
    loaded, fresh, written = [], [], {large[ours]: [], empty: []}
    for _ in range(50):
        for repo, taken in ((large[ours], loaded), (empty, fresh)):
            before = ours.written()
            taken.append(put(ours, repo))
            written[repo].append(ours.written() - before)
    rows.add(
        "the same, p50, at most 1.5 x that into an empty repo",
        "s",
        statistics.median(loaded),
        None,
        1,
        limit=1.5 * statistics.median(fresh),
    )
    rows.add("memory of the server after 100000 files", "MB", memory / 1e6, None, 1, limit=300)
    into_large, into_empty = (statistics.median(written[repo]) for repo in (large[ours], empty))
    rows.add("bytes that one file writes, at most 5 % more than in an empty repo", "B", into_large, None, 1, limit=1.05 * into_empty)
    touched = [rows_of_newest(ours, name) for name in (large[ours], empty)]
    rows.add("rows that one file touches, at most 5 % more than in an empty repo", "rows", touched[0], None, 1, limit=1.05 * touched[1])


def rows_of_newest(ours, repo):
    """Rows of the file table that the newest commit of a repo began or ended."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(ours.installation.folder("pachyderm") / "pachyderm.sqlite")) as db:
        sql = "SELECT lineage, seq FROM commits WHERE repo = (SELECT pk FROM repo WHERE name = ?) ORDER BY pk DESC LIMIT 1"
        lineage, seq = db.execute(sql, (repo,)).fetchone()
        began = db.execute("SELECT count(*) FROM file WHERE lineage = ? AND from_seq = ?", (lineage, seq)).fetchone()[0]
        return began + db.execute("SELECT count(*) FROM file WHERE lineage = ? AND to_seq = ?", (lineage, seq)).fetchone()[0]


def first_lines(engine, repo, pipeline, image, rounds):
    """Seconds from a commit to the first line of its job's program, `rounds` times."""
    client, found = engine.client(), []
    own = pfs.Project(name="default")
    spec = {
        "pipeline": {"name": pipeline},
        "transform": {"image": image, "cmd": ["/bin/sh"], "stdin": ["date +%s.%N > /pfs/out/began"]},
        "input": {"pfs": {"repo": repo, "glob": "/"}},
        "resource_requests": {"cpu": 0.01, "memory": "64Mi"},
        "sidecar_resource_requests": {"cpu": 0.01, "memory": "64Mi"},
    }
    with contextlib.suppress(grpc.RpcError):
        client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec))
    output = pfs.Repo(name=pipeline, type="user", project=own)
    for number in range(rounds + 1):
        began = time.time()
        client.pfs.modify_file(changes([("/x", b"%d" % time.time_ns())], repo))
        branch = pfs.Branch(repo=pfs.Repo(name=repo, type="user", project=own), name="master")
        id_ = client.pfs.inspect_branch(branch=branch).head.id
        job = client.pps.inspect_job(job=pps.Job(pipeline=pps.Pipeline(name=pipeline, project=own), id=id_), wait=True)
        if job.state != pps.JobState.JOB_SUCCESS:
            raise RuntimeError(f"job {id_}: {job.reason}")
        with client.pfs.pfs_file(file=pfs.File(commit=pfs.Commit(repo=output, id=id_), path="/began")) as file:
            if number:  # the first one warms up
                found.append(float(file.read()) - began)
    return statistics.median(found)


def jobs(rows, ours, peer):
    """How soon a commit's job runs."""
    repo, pipeline = new_repo(ours), f"p{uuid.uuid4().hex[:8]}"
    early = first_lines(ours, repo, pipeline, "pdk/train:0.1", 15)
    theirs = first_lines(peer, new_repo(peer), pipeline, "pdk.local/base:1", ROUNDS) if peer else None
    rows.add("commit to first line of its job, p50", "s", early, None, 1, limit=0.15)
    rows.add("the same beside pachd", "s", early, theirs, None)
    client = ours.client()
    client.pps.stop_pipeline(pipeline=pps.Pipeline(name=pipeline, project=pfs.Project(name="default")))
    for number in range(1000):
        client.pfs.modify_file(changes([(f"/{number}", b"x")], repo))
    client.pps.start_pipeline(pipeline=pps.Pipeline(name=pipeline, project=pfs.Project(name="default")))
    late = first_lines(ours, repo, pipeline, "pdk/train:0.1", 15)
    rows.add("the same after 1000 commits, at most 1.5 x", "s", late, None, 1, limit=1.5 * early)


def materialised(rows, ours, folder):
    """A datum of 2,000 files, as the job's own statistics have it."""
    repo, pipeline, client = new_repo(ours), f"p{uuid.uuid4().hex[:8]}", ours.client()
    seconds([PACHCTL, "put", "file", f"{repo}@master:/", "-r", "-f", str(folder / "in-2000")], ours.env)
    spec = {
        "pipeline": {"name": pipeline},
        "transform": {"image": "pdk/train:0.1", "cmd": ["true"]},
        "input": {"pfs": {"repo": repo, "glob": "/"}},
    }
    client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec))
    found = []
    named = pps.Pipeline(name=pipeline, project=pfs.Project(name="default"))
    for _ in range(ROUNDS):
        newest = next(iter(client.pps.list_job(pipeline=named)))
        done = client.pps.inspect_job(job=newest.job, wait=True)
        found.append(done.stats.download_time.total_seconds())
        client.pps.rerun_pipeline(pipeline=named, reprocess=True)
    rows.add("2000 x 20 kB materialised into /pfs", "s", statistics.median(found), None, 1, limit=0.6)


def main():
    peer = Peer() if os.environ.get("PACHD_PEER_SERVICE_HOST") else None
    rows = Rows()
    with tempfile.TemporaryDirectory(prefix="pdk-bench-") as name:
        folder = Path(name)
        ours = Local(folder)
        try:
            starts = []
            for _ in range(ROUNDS):
                ours.stop()
                starts.append(ours.start())
            rows.add("start of the server to its first answer", "s", statistics.median(starts), None, 1, limit=1.5)
            puts_and_gets(rows, ours, peer, folder)
            materialised(rows, ours, folder)
            jobs(rows, ours, peer)
            one_file(rows, ours, peer)
        finally:
            ours.stop()
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    versions = {name: metadata.version(name) for name in ("pdk", "pachyderm-sdk", "grpcio", "protobuf")} | {
        "pachd": "2.12.2" if peer else None
    }
    target = Path(__file__).parent / "results" / "pachyderm.json"
    target.write_text(json.dumps({"machine": machine, "versions": versions, "rows": list(rows)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
