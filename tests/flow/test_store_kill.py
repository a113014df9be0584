"""kill -9 of the Pachyderm server under load: what was acknowledged is there, whole; nothing else is half there."""

import os
import random
import threading

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from conftest import Alone, wait_until

KILLS = int(os.environ.get("PDK_KILLS", "20"))  # 200 in `make nightly`


def put(client, number):
    """One commit with two small files and, now and then, a large one; their content says which."""
    repo = pfs.Repo(name="data", type="user", project=pfs.Project(name="default"))
    files = {f"/{number}/a": b"%d" % number, f"/{number}/b": b"%d" % number * 1000}
    if number % 7 == 0:
        files[f"/{number}/large"] = bytes([number % 256]) * (2 << 20)

    def requests():
        yield pfs.ModifyFileRequest(set_commit=pfs.Commit(repo=repo, branch=pfs.Branch(repo=repo, name="master")))
        for path, content in files.items():
            yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=content))

    client.pfs.modify_file(requests())
    return {path: len(content) for path, content in files.items()}


def reached(server):
    """A client that has an answer already; None where there is none yet."""
    client = Client(host="127.0.0.1", port=server.installation.ports.pachyderm)
    try:
        client.get_version()
    except (grpc.RpcError, ConnectionError):
        return None
    return client


@pytest.fixture
def server(tmp_path):
    (tmp_path / "state").mkdir()
    running = Alone(tmp_path / "state").start()
    yield running
    running.stop()


def test_nothing_acknowledged_is_lost(server):
    client = Client(host="127.0.0.1", port=server.installation.ports.pachyderm)
    repo = pfs.Repo(name="data", type="user", project=pfs.Project(name="default"))
    client.pfs.create_repo(repo=repo)
    acknowledged, number = {}, [0]
    chance = random.Random(7)
    for _ in range(KILLS):
        stop = threading.Event()

        def load(stop=stop):
            mine = wait_until(lambda: reached(server), 30, "a connection")
            while not stop.is_set():
                number[0] += 1
                try:
                    acknowledged.update(put(mine, number[0]))
                except (grpc.RpcError, ConnectionError):
                    return

        loading = threading.Thread(target=load)
        loading.start()
        wanted = number[0] + chance.randrange(1, 12)
        wait_until(lambda wanted=wanted, loading=loading: number[0] >= wanted or not loading.is_alive(), 60, "some puts")
        server.kill()
        stop.set()
        loading.join()
        server.start()
    client = wait_until(lambda: reached(server), 30, "a new connection")  # the library waits a while after a refused one
    head = pfs.Commit(repo=repo, branch=pfs.Branch(repo=repo, name="master"))
    found = {f.file.path: f.size_bytes for f in client.pfs.walk_file(file=pfs.File(commit=head, path="/"))}
    assert {path: found.get(path) for path in acknowledged} == acknowledged
    groups = {}
    for path in found:
        if path.count("/") == 2 and not path.endswith("/"):
            groups.setdefault(path.split("/")[1], set()).add(path.split("/")[2])
    for name, members in groups.items():
        assert members == ({"a", "b", "large"} if int(name) % 7 == 0 else {"a", "b"}), name
    assert [answer.error for answer in client.pfs.fsck()] == []
