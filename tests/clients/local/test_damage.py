"""A disk that lies: packs that vanish, contents that change, pages that break. Nothing wrong is ever read as if it were right."""

import asyncio
import os

import boto3
import grpc
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from conftest import wait_until
from flow.test_store_kill import server  # noqa: F401 - a fixture
from pdk.errors import TemporaryError
from pdk.kit.db import damage
from pdk.local.pachyderm.rules.model import CommitRef
from pdk.local.pachyderm.runtime.inventory import missing
from pdk.local.pachyderm.runtime.uploads import Upload
from pdk.local.pachyderm.store.blobs import LARGE, Damaged
from pdk.local.pachyderm.store.locations import find
from unit.local.test_versions import REPO, Store

MASTER = CommitRef(REPO, branch="master")
BIG = bytes(range(256)) * (3 * LARGE // 256)


@pytest.fixture
def store():
    made = Store()
    yield made
    made.close()


def put(store, path, content):
    """One file in a commit; where its content lies."""
    commit = store.modify(MASTER, [("put", path, content)])
    entry = next(entry for entry in store.entries(commit) if entry.path == path)
    return find(store.db.reader, entry.hash)


def read(store, blob, *part):
    return b"".join(store.blobs.read(blob, *part))


def change_byte(path, at):
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 1]))


def reopen(store):
    store.close_files()
    store.open(store.folder)


@pytest.mark.parametrize("left", [None, 0, 30_000])
def test_bytes_after_a_lost_pack_are_never_taken_for_those_before(store, left):
    before = [(put(store, f"/{n}", bytes([n]) * 20_000), bytes([n]) * 20_000) for n in range(4)]
    pack = store.blobs.path(before[0][0])
    store.close_files()
    if left is None:
        pack.unlink()
    else:
        os.truncate(pack, left)
    store.open(store.folder)
    after = [put(store, f"/new{n}", bytes([n + 100]) * 30_000) for n in range(4)]
    assert {blob.pack for blob in after}.isdisjoint({blob.pack for blob, _ in before})
    whole = 1 if left == 30_000 else 0
    for blob, content in before[:whole]:
        assert read(store, blob) == content
    for blob, _ in before[whole:]:
        with pytest.raises(Damaged):
            read(store, blob)
    assert [read(store, blob) for blob in after] == [bytes([n + 100]) * 30_000 for n in range(4)]
    (found,) = missing(store.db.reader, store.blobs)
    assert (found.file, found.contents, found.size) == (pack, 4 - whole, (4 - whole) * 20_000)
    assert "default/data:/" in str(found)


def test_a_number_is_not_used_again_while_a_row_names_it(store):
    blob = put(store, "/a", b"a" * 100)
    for _ in range(3):
        store.blobs.path(blob).unlink(missing_ok=True)
        for path in store.blobs.packs.iterdir():
            path.unlink()
        reopen(store)
        numbers = [int(path.stem) for path in store.blobs.packs.iterdir()]
        assert numbers
        assert min(numbers) > blob.pack


def test_a_pack_that_vanishes_under_a_running_server(store):
    lost = put(store, "/a", b"a" * 100)
    store.blobs.path(lost).unlink()
    kept = put(store, "/b", b"b" * 100)
    assert kept.pack != lost.pack
    assert read(store, kept) == b"b" * 100
    with pytest.raises(Damaged, match="is gone"):
        read(store, lost)


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_what_was_written_to_a_file_without_a_name_is_not_acknowledged(store, how):
    put(store, "/a", b"a")

    async def upload():
        with Upload(store.db, store.blobs) as incoming:
            incoming.replace("/b", b"b" * 100)
            incoming.add("/c", b"")
            incoming.incoming.flush()
            pack = store.blobs.path(next(iter(incoming.incoming.rows.values())))
            pack.rename(pack.with_suffix(".away"))
            if how == "removed":
                pack.with_suffix(".away").unlink()
            elif how == "replaced":
                pack.write_bytes(pack.with_suffix(".away").read_bytes())
            await incoming.commit(MASTER)

    with pytest.raises(TemporaryError, match="nothing was committed"):
        asyncio.run(upload())
    assert put(store, "/b", b"b" * 100).pack > 1  # the next try is stored elsewhere


@pytest.mark.parametrize("size", [100, LARGE - 1, LARGE, len(BIG)])
def test_a_changed_content_is_never_read_to_its_end(store, size):
    content = BIG[:size]
    blob = put(store, "/a", content)
    change_byte(store.blobs.path(blob), blob.offset + size - 1)
    parts = []
    with pytest.raises(Damaged, match="something else"):
        parts.extend(store.blobs.read(blob))
    assert sum(map(len, parts)) < size
    with pytest.raises(Damaged):
        store.blobs.verify(blob) if blob.pack == 0 else read(store, blob, 10, 20)
    target = store.folder / "target"
    with store.blobs.reading() as reading, pytest.raises(Damaged):
        reading.write_to(blob, str(target))
    assert "does not have its hash" in store.problems()[0]


@pytest.mark.parametrize("size", [100, len(BIG)])
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_the_same_content_put_once_more_mends_the_store(store, size, how):
    blob = put(store, "/a", BIG[:size])
    if how == "gone":
        store.blobs.path(blob).unlink()
    else:
        change_byte(store.blobs.path(blob), blob.offset)
    with pytest.raises(Damaged):
        read(store, blob)
    put(store, "/b", BIG[:size])
    assert read(store, find(store.db.reader, blob.hash)) == BIG[:size]
    assert store.problems() == []
    assert list(missing(store.db.reader, store.blobs)) == []


def test_garbage_is_collected_beside_what_is_damaged(store):
    blobs = [put(store, "/a", bytes([n]) * 1000) for n in range(9)]
    store.blobs.begin_pack()
    change_byte(store.blobs.path(blobs[-1]), blobs[-1].offset)
    store.collect()
    assert store.blobs.path(blobs[-1]).exists()
    with pytest.raises(Damaged):
        read(store, blobs[-1])


def test_a_parts_hash_is_made_once(store):
    blob = put(store, "/a", BIG)
    store.blobs.verify(blob)
    assert read(store, blob, 10, 20) == BIG[10:30]
    change_byte(store.blobs.path(blob), 15)
    with pytest.raises(Damaged):
        store.blobs.verify(blob)


def break_pages(path, pages=3):
    """Overwrite pages in the middle of a database."""
    with path.open("r+b") as file:
        for page in range(pages):
            file.seek((path.stat().st_size // 4096 // 2 + page) * 4096)
            file.write(b"\xde\xad\xbe\xef" * 1024)


def test_fsck_names_damaged_pages(store):
    store.modify(MASTER, [("put", f"/folder{n}/{n}", b"%d" % n) for n in range(500)])
    store.close_files()
    break_pages(store.folder / "db.sqlite")
    store.open(store.folder)
    problems = store.problems()
    assert any("damaged page in" in problem for problem in problems), problems
    asyncio.run(store.db.examine())
    assert "damaged page in" in store.db.health()
    assert "backup" in store.db.health()


def test_a_sound_file_has_no_damage(store):
    assert list(damage(store.db.reader, store.db.path)) == []
    asyncio.run(store.db.examine())
    assert store.db.health() == ""


def test_clients_are_told_what_is_lost(server):  # noqa: F811 - the fixture
    installation = server.installation
    client = Client(host="127.0.0.1", port=installation.ports.pachyderm)
    repo = pfs.Repo(name="data", type="user", project=pfs.Project(name="default"))
    client.pfs.create_repo(repo=repo)
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        commit.put_file_from_bytes(path="/small", data=b"small" * 100)
        commit.put_file_from_bytes(path="/large", data=BIG)
    store = installation.state / "pachyderm" / "store"
    (pack,) = (store / "packs").iterdir()
    pack.rename(store / "away")
    (large,) = (store / "large").glob("*/*")
    change_byte(large, len(BIG) - 1)
    s3 = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{installation.ports.s3}", aws_access_key_id="any", aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )  # fmt: skip
    with pytest.raises(ClientError, match="is gone") as refused:
        s3.get_object(Bucket="master.data.default", Key="small")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    with pytest.raises(ClientError, match="holds something else"):
        s3.get_object(Bucket="master.data.default", Key="large", Range="bytes=0-9")
    with pytest.raises(BotoCoreError):  # begun well, and broken off
        s3.get_object(Bucket="master.data.default", Key="large")["Body"].read()
    for path in ("/small", "/large"):
        with pytest.raises(grpc.RpcError) as failed:
            list(client.pfs.get_file(file=pfs.File(commit=commit, path=path)))
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert "cannot be read" in failed.value.details()

    server.kill()
    server.spawn()
    answer = wait_until(server.answer, 60, "an answer")
    assert answer["status"] == "failing"
    assert f"{pack} is gone; it held" in answer["checks"]["contents"]
    assert "default/data:/small" in answer["checks"]["contents"]
    shown = server.fails("pdk", "status", code=1)
    assert f"{pack} is gone" in shown
    (store / "away").rename(pack)
    server.kill()
    server.start()
    assert s3.get_object(Bucket="master.data.default", Key="small")["Body"].read() == b"small" * 100
