"""Many who wait, streams that break off, messages that are too large."""

import threading

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

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


def test_a_thousand_wait_while_commits_finish(client, repo):
    """Calls that wait do not hold up calls that write, and all of them are told."""
    opened = client.pfs.start_commit(branch=pfs.Branch(repo=repo, name="master"))
    channel = client.channel if hasattr(client, "channel") else client._channel
    inspect = channel.unary_unary(
        "/pfs_v2.API/InspectCommit",
        request_serializer=pfs.InspectCommitRequest.SerializeToString,
        response_deserializer=pfs.CommitInfo.FromString,
    )
    waiting = [inspect.future(pfs.InspectCommitRequest(commit=opened, wait=pfs.CommitState.FINISHED)) for _ in range(WAITERS)]
    other = pfs.Repo(name=f"{repo.name}-other", type="user", project=repo.project)
    client.pfs.create_repo(repo=other)
    for number in range(5):
        with client.pfs.commit(branch=pfs.Branch(repo=other, name="master")) as commit:
            commit.put_file_from_bytes(path=f"/{number}", data=b"x")
    assert not any(call.done() for call in waiting)
    client.pfs.finish_commit(commit=opened)
    assert {call.result(timeout=60).commit.id for call in waiting} == {opened.id}


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
