"""Many who wait, streams that break off, messages that are too large."""

import asyncio
import json
import threading

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

WAITERS = 1000


@pytest.fixture
def client(up):
    return Client(host="127.0.0.1", port=up.installation.ports.pachyderm)


@pytest.fixture
def repo(client, name):
    made = pfs.Repo(name=name, type="user", project=pfs.Project(name="default"))
    client.pfs.create_repo(repo=made)
    return made


def head(repo):
    return pfs.Commit(repo=repo, branch=pfs.Branch(repo=repo, name="master"))


def test_a_thousand_wait_while_commits_finish(up, client, repo):
    """`logs -f`, wait and subscribe calls do not hold up calls that write, and all of them are told."""
    spec = {
        "pipeline": {"name": f"{repo.name}-slow"},
        "transform": {"image": "pdk/train:0.1", "cmd": ["sh", "-c", "echo begun; sleep 5; echo end"]},
        "input": {"pfs": {"repo": repo.name, "glob": "/"}},
    }
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as first:
        first.put_file_from_bytes(path="/first", data=b"x")
    client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec))
    job = next(iter(client.pps.list_job(pipeline=pps.Pipeline(name=f"{repo.name}-slow", project=repo.project)))).job
    opened = client.pfs.start_commit(branch=pfs.Branch(repo=repo, name="dev"))

    def write():
        for number in range(5):
            with client.pfs.commit(branch=pfs.Branch(repo=repo, name="other")) as commit:
                commit.put_file_from_bytes(path=f"/{number}", data=b"x")
        client.pfs.finish_commit(commit=opened)
        client.pfs.inspect_commit(commit=pfs.Commit(repo=repo, id=opened.id), wait=pfs.CommitState.FINISHED)

    async def main():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{up.installation.ports.pachyderm}") as channel:

            def method(kind, path, request, answer):
                return getattr(channel, kind)(path, request_serializer=request.SerializeToString, response_deserializer=answer.FromString)

            inspect = method("unary_unary", "/pfs_v2.API/InspectCommit", pfs.InspectCommitRequest, pfs.CommitInfo)
            subscribe = method("unary_stream", "/pfs_v2.API/SubscribeCommit", pfs.SubscribeCommitRequest, pfs.CommitInfo)
            logs = method("unary_stream", "/pps_v2.API/GetLogs", pps.GetLogsRequest, pps.LogMessage)

            async def finished():
                return (await inspect(pfs.InspectCommitRequest(commit=opened, wait=pfs.CommitState.FINISHED))).commit.id

            async def subscribed():
                stream = subscribe(pfs.SubscribeCommitRequest(repo=repo, branch="dev", state=pfs.CommitState.FINISHED))
                return (await stream.read()).commit.id

            async def followed():
                return [line.message async for line in logs(pps.GetLogsRequest(job=job, follow=True))][-1]

            waiting = [asyncio.create_task(kind()) for _ in range(WAITERS // 3 + 1) for kind in (finished, subscribed, followed)]
            await asyncio.to_thread(write)
            return await asyncio.wait_for(asyncio.gather(*waiting), 120)

    assert set(asyncio.run(main())) == {opened.id, "end"}


def test_a_stream_that_breaks_off_writes_nothing(up, repo, client):
    begun = threading.Event()

    def requests():
        yield pfs.ModifyFileRequest(set_commit=head(repo))
        for number in range(100):
            yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=f"/{number}", raw=b"x" * 1000))
        begun.set()
        raise ConnectionAbortedError

    with pytest.raises((grpc.RpcError, ConnectionAbortedError)):
        Client(host="127.0.0.1", port=up.installation.ports.pachyderm).pfs.modify_file(requests())
    assert begun.is_set()
    assert list(client.pfs.list_commit(repo=repo)) == []


def test_a_message_over_the_limit_is_refused(client, repo):
    def requests():
        yield pfs.ModifyFileRequest(set_commit=head(repo))
        yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/large", raw=bytes(21 << 20)))

    with pytest.raises(grpc.RpcError) as error:
        client.pfs.modify_file(requests())
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert list(client.pfs.list_commit(repo=repo)) == []


def test_two_clients_commit_to_one_branch_at_once(up, repo):
    def work(name):
        client = Client(host="127.0.0.1", port=up.installation.ports.pachyderm)
        for number in range(20):
            changes = [
                pfs.ModifyFileRequest(set_commit=head(repo)),
                pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/log", raw=b"%s%d;" % (name, number))),
            ]
            client.pfs.modify_file(iter(changes))

    both = [threading.Thread(target=work, args=(name,)) for name in (b"a", b"b")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    client = Client(host="127.0.0.1", port=up.installation.ports.pachyderm)
    with client.pfs.pfs_file(file=pfs.File(commit=head(repo), path="/log")) as source:
        written = source.read().decode().strip(";").split(";")
    assert sorted(written) == sorted(f"{name}{number}" for name in "ab" for number in range(20))
    assert len(list(client.pfs.list_commit(repo=repo))) == 40
