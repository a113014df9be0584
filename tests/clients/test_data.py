"""`pdk.data`: what experiments read a commit with."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from conftest import Alone, wait_until
from pdk import data
from pdk.engines.pachyderm import Pachyderm
from pdk.engines.pachyderm.commit_files import fields
from pdk.errors import PdkError, TemporaryError, UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pdk-data"


class Repo:
    """A repo of its own, and configs of its commits."""

    def __init__(self, port, project):
        self.port, self.project = port, project
        self.repo = pfs.Repo(name="data", type="user", project=pfs.Project(name=project))
        self.client = Client(host="127.0.0.1", port=port)
        if project != "default":
            self.client.pfs.create_project(project=self.repo.project)
        self.client.pfs.create_repo(repo=self.repo)

    def put(self, files, **more):
        with self.client.pfs.commit(branch=pfs.Branch(repo=self.repo, name="master")) as commit:
            for path, content in files.items():
                if content is None:
                    commit.delete_file(path=path)
                else:
                    commit.put_file_from_bytes(path=path, data=content)
        return {
            "host": "127.0.0.1",
            "port": str(self.port),
            "project": self.project,
            "repo": "data",
            "branch": commit.id,
            "token": "",
            **more,
        }


@pytest.fixture
def repo(up, cache, name):
    return Repo(up.installation.ports.pachyderm, name)


def contents(found):
    return {file.path: file.read() for file in found}


@pytest.mark.parametrize("count", [3, data.FEW + 10])
def test_files_of_a_commit_and_what_changed_since(repo, cache, count):
    first = {f"/{n}.txt": b"%d" % n * 100 for n in range(count)} | {"/deep/a.JPG": b"jpg", "/.hidden.jpg": b"no", "/empty.png": b""}
    config = repo.put(first)
    assert data.paths(config) == sorted(first)
    assert contents(data.files(config)) == first
    assert list(contents(data.pictures(config))) == ["/deep/a.JPG", "/empty.png"]
    later = repo.put({"/0.txt": None, "/1.txt": None, "/new.txt": b"new", "/same.txt": b"0" * 100}, previous_commit=config["branch"])
    kept = {path.name for path in cache.iterdir()}
    assert contents(data.files(later)) == {"/new.txt": b"new", "/same.txt": b"0" * 100}
    assert len({path.name for path in cache.iterdir()} - kept) == 1  # the other content was there
    assert [file.path for file in data.files(later)] == sorted(contents(data.files(later)))


def test_a_content_that_was_cut_is_fetched_again(repo):
    config = repo.put({"/a": b"whole"})
    (found,) = data.files(config)
    found.local.write_bytes(b"")
    assert contents(data.files(config)) == {"/a": b"whole"}


def test_trials_that_bring_the_same_at_once(repo):
    config = repo.put({f"/{n}": b"%d" % n * 5000 for n in range(30)})
    with ThreadPoolExecutor(4) as pool:
        assert all(len(contents(found)) == 30 for found in pool.map(lambda _: data.files(config), range(4)))


def test_tables_and_texts(repo):
    tables = {"/a.csv": '\ufeffx,y\r\n1,"two, \nlines"\r\n3,4\r\n'.encode(), "/b.tsv": b"x\ty\n5\t6\n"}
    config = repo.put({**tables, "/c.txt": b"text", "/d.csv.gz": b"\xff"})
    assert [(str(row), dict(row.values)) for row in data.rows(config)] == [
        ("/a.csv, line 3", {"x": "1", "y": "two, \nlines"}),
        ("/a.csv, line 4", {"x": "3", "y": "4"}),
        ("/b.tsv, line 2", {"x": "5", "y": "6"}),
    ]
    assert [(file.path, text) for file, text in data.texts(config)] == [("/c.txt", "text")]
    with pytest.raises(UserError, match=r"/d.csv.gz of the data commit is no text in UTF-8"):
        list(data.texts(config, [".gz"]))


@pytest.mark.parametrize("line", [b"1", b"1,2,3"])
def test_a_row_of_another_length_is_named(repo, line):
    with pytest.raises(UserError, match=r"/a.csv, line 3: 2 values are expected"):
        list(data.rows(repo.put({"/a.csv": b"x,y\n1,2\n" + line + b"\n"})))


@pytest.mark.parametrize("lost", ["host", "port", "repo", "branch"])
def test_a_config_that_was_not_filled_in(repo, lost):
    with pytest.raises(UserError, match="the train step fills it in"):
        data.files({**repo.put({"/a": b"a"}), lost: ""})


def test_a_commit_that_is_not_there(repo):
    with pytest.raises(PdkError, match="not found"):
        data.files({**repo.put({"/a": b"a"}), "branch": "0" * 32})


@pytest.fixture
def server(tmp_path):
    (tmp_path / "state").mkdir()
    running = Alone(tmp_path / "state").start()
    yield running
    running.kill()


@pytest.mark.parametrize("count", [20, 300])
def test_an_engine_that_goes_away_is_waited_for(server, cache, count):
    repo = Repo(server.installation.ports.pachyderm, "default")
    wanted = {f"/{n}": b"%d" % n * 20_000 for n in range(count)}
    config, found = repo.put(wanted), []
    for kill_at in (0, count // 3):
        reading = threading.Thread(target=lambda: found.append(contents(data.files(config))))
        if kill_at:  # while the files come
            reading.start()
            wait_until(lambda at=kill_at: len(list(cache.glob("*"))) > at, 60, "some files")
            server.kill()
        else:
            server.kill()
            reading.start()
        server.start()
        reading.join(120)
        assert found.pop() == wanted
        for path in cache.iterdir():
            path.unlink()


def test_calls_to_an_engine_that_is_away_may_be_tried_again(server, cache):
    """The SDK raises errors of Python's own then: each of them must be one that the steps wait for."""
    engine = Pachyderm("127.0.0.1", server.installation.ports.pachyderm)
    config = Repo(server.installation.ports.pachyderm, "default").put({"/a": b"a"})
    server.kill()
    calls = [
        engine.version, engine.repos, lambda: engine.data_commit("default", "data", config["branch"]),
        lambda: engine.read("default", "data", config["branch"], "/a"), lambda: engine.head("default", "data", "master"),
        lambda: engine.write("default", "data", "master", "x", {"a": b"a"}), lambda: engine.ensure_repo("default", "x", ""),
        lambda: engine.reader_token("default", "data", "r"), lambda: list(engine.jobs("default")),
        lambda: engine.put_files("default", "data", "master", {}),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(TemporaryError, match="does not answer"):
            call()


@given(
    st.builds(
        pfs.FileInfo,
        file=st.builds(pfs.File, path=st.text(max_size=300)), file_type=st.sampled_from(list(pfs.FileType)),
        size_bytes=st.integers(0, 2**62), hash=st.binary(max_size=40),
    )
)  # fmt: skip
def test_messages_are_read_as_the_sdk_reads_them(info):
    found = fields(bytes(info))
    assert (found.get(2, 0), found.get(4, 0), found.get(5, b"")) == (info.file_type, info.size_bytes, info.hash)
    assert fields(found.get(1, b"")).get(2, b"").decode() == info.file.path


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw):
    try:
        fields(raw)
    except TemporaryError:
        return
