"""What programs write, and what a machine that went down left behind: nothing of it stops a server, or shows what is hidden."""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from clients.pachyderm.test_jobs import create, ended
from clients.pachyderm.test_logs import pach  # noqa: F401 - a fixture
from conftest import Alone, Up, wait_until
from pdk.kit import foreign, launcher, logs, process
from pdk.kit.process import base_environment
from pdk.kit.spec import Spec
from pdk.local.kserve.runtime import replica


@pytest.fixture(params=["fifo", "link", "folder", "socket", "garbage", "list", "deep", "endless"])
def strange(request, tmp_path):
    """Puts something that is no note in the place of a file."""

    def put(path):
        path.unlink(missing_ok=True)
        if request.param == "fifo":
            os.mkfifo(path)
        elif request.param == "link":
            (tmp_path / "elsewhere").write_text("{}")
            path.symlink_to(tmp_path / "elsewhere")
        elif request.param == "folder":
            path.mkdir()
        elif request.param == "socket":
            os.mknod(path, 0o140600)
        else:
            path.write_text({"garbage": "{", "list": "[1]", "deep": "[" * 60_000, "endless": '{"a": "' + "x" * (1 << 20)}[request.param])

    return put


def handle(run):
    return process.Handle(run, os.getpid(), launcher.start_time(os.getpid()) - 1, launcher.boot_id())


def test_notes_of_another_kind_are_none(tmp_path, strange):
    strange(tmp_path / "note")
    assert foreign.note(tmp_path / "note") is None


def test_servers_pass_them_over(tmp_path, strange):
    (tmp_path / "own").mkdir()
    for name in ("started.json", "exit.json", "own/ready.json"):
        strange(tmp_path / name)
    assert process.find(tmp_path) is None
    assert process.status(handle(tmp_path)).code == process.LOST
    assert replica.adopt(handle(tmp_path)) is None


@pytest.mark.parametrize(
    "note", [{}, {"pid": "1", "start_time": 1, "boot": "x"}, {"pid": -1, "start_time": 1, "boot": "x"}, {"pid": 1, "start_time": 1}]
)
def test_a_note_with_other_fields_names_no_program(tmp_path, note):
    (tmp_path / "started.json").write_text(json.dumps(note))
    assert process.find(tmp_path) is None


def test_a_predictor_cannot_point_elsewhere(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "ready.json").write_text(json.dumps({"host": "10.0.0.1", "port": 80, "model": "m"}))
    assert replica.adopt(handle(tmp_path)) is None


SEARCH = "find / -xdev -name exit.json -o -xdev -name started.json 2>/dev/null; grep -o '/[^ ]*/try-[^ ]*' /proc/self/mountinfo; cat"


def test_a_program_has_no_way_into_its_run_folder(tmp_path):
    run, words = tmp_path / "run", tmp_path / "words"
    words.write_text("from standard input\n")

    async def main():
        started = await process.start(run, Spec(["sh", "-c", f"ls {run}; {SEARCH}"], base_environment(), stdin=words))
        return await process.wait(started), started.log.read_text()

    ended_, log = asyncio.run(main())
    assert ended_.code == 0
    assert "from standard input" in log
    assert f"cannot access '{run}'" in log
    assert "json" not in log


RIGHTS = """
import ctypes, os, pathlib, sys
sys.path.insert(0, sys.argv[1] + "/src")
from pdk.kit import launcher
def show(argv, environment):
    libc = ctypes.CDLL(None, use_errno=True)
    print([line.split() for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))])
    print("unmount", libc.umount2(argv[0].encode(), 2), os.listdir(argv[0]), flush=True)
    os._exit(0)
launcher.launch(pathlib.Path(sys.argv[1]) / "run", show)
"""


@pytest.mark.skipif(
    os.getuid() != 0 or not Path("/usr/bin/python3").exists(), reason="needs root, to become an ordinary user, and a system python"
)
def test_a_forked_program_cannot_undo_what_hides_a_folder():
    """As a trial that goes on in a warm process does: without an exec, which would take its rights away."""
    place = Path("/var/tmp") / f"pdk-rights-{os.getpid()}"
    hidden, run, kit = place / "hidden", place / "run", place / "src/pdk/kit"
    try:
        for folder in (hidden, run, kit):
            folder.mkdir(parents=True)
        (hidden / "secret").write_text("x")
        shutil.copy(launcher.__file__, kit)
        (run / "spec.json").write_text(
            json.dumps({"argv": [str(hidden)], "env": {}, "cwd": "/", "stdin": None, "hide": [str(hidden)], "binds": []})
        )
        subprocess.run(["chown", "-R", "nobody", str(place)], check=True)
        words = ["/usr/bin/python3", "-I", "-S", "-c", RIGHTS, str(place)]
        subprocess.run(words, user="nobody", group="nogroup", extra_groups=[], check=True, env={})
        wait_until((run / "exit.json").exists, 20, "its end")
        log = (run / "log").read_text()
        if "Operation not permitted" in log:
            pytest.skip(f"this machine allows no user namespaces: {log.strip()}")
        assert "['CapEff:', '0000000000000000'], ['CapBnd:', '0000000000000000'], ['NoNewPrivs:', '1']" in log, log
        assert "unmount -1 []" in log
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_out_cannot_be_a_link(up, client, name):
    script = f"mv /pfs/out /pfs/o; ln -s {up.state}/kserve /pfs/out"
    job = create(client, name, "p", script, input={"pfs": {"repo": "data", "glob": "/"}})
    assert "symbolic link in the place of /pfs/out" in ended(client, job).reason


@pytest.fixture
def client(up, pach):  # noqa: F811 - makes the project with repo and two files
    return Client(host="127.0.0.1", port=up.installation.ports.pachyderm)


def test_a_line_without_an_end_holds_nobody_up(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        for _ in range(150):
            file.write(b"x" * 1_000_000)
        file.write(b"\nlast")
    late = []

    async def main():
        async def watch():
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                late.append(time.monotonic() - before)

        watching = asyncio.create_task(watch())
        lines = [line async for line in logs.follow(log, lambda: True)]
        watching.cancel()
        return lines

    lines = asyncio.run(main())
    assert [len(line) for line in lines] == [logs.LINE + len(logs.CUT), 4]
    assert max(late) < 1.0


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_lines_do_not_depend_on_how_they_come(size):
    text = b"a\r\n\nbc\n" + b"d" * (logs.LINE + 5) + b"\ne"
    lines, found = logs.Lines(), []
    for start in range(0, len(text), size):
        found += lines.add(text[start : start + size])
    assert found + lines.end() == ["a", "", "bc", "d" * logs.LINE + logs.CUT, "e"]


HUNG = """
import asyncio, pathlib, sys
from pdk.local.up import Allowed, Supervisor, prepare
from pdk.installation import Ports
installation = prepare(pathlib.Path(sys.argv[1]), "127.0.0.1", Ports(), Allowed(), fixed_ports=(), say=print)
asyncio.run(Supervisor(installation, lambda text: print(text, flush=True), hung_s=4.0).run())
"""


class Watched(Up):
    """A supervisor that waits for four seconds only, in a folder with modules that nobody asked for."""

    def start(self):
        place = self.state.parent / "place"
        for folder in (self.state, place):
            folder.mkdir()
        for module in ("uvicorn", "json", "aiohttp", "pdk"):
            (place / f"{module}.py").write_text(f"open({str(place / 'imported')!r}, 'a').write({module!r})\nraise SystemExit(9)\n")
        with (self.state / "up.log").open("ab") as log:
            words = [sys.executable, "-P", "-c", HUNG, str(self.state)]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, cwd=place)
        wait_until(lambda: self.healthy() and "PDK is up" in (self.state / "up.log").read_text(), 90, "the supervisor and its servers")
        return self


def test_a_server_that_hangs_is_started_again(tmp_path):
    running = Watched(tmp_path / "state").start()
    try:
        before = {name: running.server(name) for name in ("pachyderm", "gateway")}
        os.kill(before["gateway"], 19)
        wait_until(lambda: "gateway has not answered for" in (running.state / "up.log").read_text(), 60, "the supervisor's word")
        wait_until(running.healthy, 60, "the gateway")
        assert running.server("gateway") != before["gateway"]
        assert running.server("pachyderm") == before["pachyderm"]
        assert not (tmp_path / "place" / "imported").exists()
    finally:
        running.stop()


def test_what_cannot_be_read_keeps_no_server_from_starting(tmp_path):
    """A job whose row is damaged, run folders that hold anything, files that a machine left empty when it went down."""
    (tmp_path / "state").mkdir()
    server = Alone(tmp_path / "state").start()
    try:
        client = Client(host="127.0.0.1", port=server.installation.ports.pachyderm)
        repo = pfs.Repo(name="data", type="user", project=pfs.Project(name="default"))
        client.pfs.create_repo(repo=repo)
        with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
            commit.put_file_from_bytes(path="/a", data=b"a")
        bad, good = create(client, "default", "bad", "sleep 60"), create(client, "default", "good", "cp /pfs/data/a /pfs/out/")
        assert ended(client, good).reason == ""
        server.kill()
        home = server.state / "pachyderm"
        with sqlite3.connect(home / "pachyderm.sqlite") as db:
            db.execute("UPDATE job SET spec = '{' WHERE id = ?", (bad.id,))
        run = home / "jobs" / "default" / "bad" / bad.id / "datum" / "try-0-1"
        run.mkdir(parents=True)
        os.mkfifo(run / "started.json")
        (home / "id").write_text("")
        for cached in (server.state / "cache").iterdir():
            cached.write_text("{")
        server.spawn()
        answer = wait_until(server.answer, 60, "an answer")
        wait_until(lambda: "cannot be read" in server.answer()["checks"]["jobs"], 20, "its word")
        assert answer["checks"]["database"] == "ok"
        client = wait_until(lambda: Client(host="127.0.0.1", port=server.installation.ports.pachyderm), 20)
        assert ended(client, create(client, "default", "later", "true")).reason == ""
    finally:
        server.kill()


def test_an_installation_that_the_machine_left_half_written(tmp_path):
    running = Up(tmp_path / "state").start()
    running.stop()
    for name in ("up.json", "pachyderm.json", "kube/config", "kserve/ca.pem", "determined/id"):
        (running.state / name).write_text("")
    try:
        running.start()
        assert "default" in running.run("pdk", "list", "project")
    finally:
        running.stop()
