"""The launcher: namespaces, exit status, adoption, as root and as an ordinary user."""

import ast
import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import wait_until
from pdk.kit import launcher, loopback, process
from pdk.kit.process import base_environment
from pdk.kit.spec import Bind, Spec

LISTENERS = """
import socket, threading, os
found = {}
v4, v6 = socket.AF_INET, socket.AF_INET6
for name, family, address in (("v4", v4, ("0.0.0.0", 0)), ("v6", v6, ("::", 0)), ("own", v4, ("127.0.0.3", 0))):
    server = socket.socket(family)
    if name == "v6":
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    thread = threading.Thread(target=server.bind, args=(address,))
    thread.start()
    thread.join()
    server.listen()
    found[name] = server.getsockname()[0]
    socket.create_connection(("127.0.0.3" if name == "own" else "127.0.0.1", server.getsockname()[1])).close()
unbound = socket.socket()
unbound.listen()
found["unbound"] = unbound.getsockname()[0]
datagrams = socket.socket(type=socket.SOCK_DGRAM)
datagrams.bind(("", 0))
found["datagrams"] = datagrams.getsockname()[0]
taken = socket.socket()
try:
    taken.bind(("", unbound.getsockname()[1]))
except OSError as error:
    found["taken"] = error.strerror
print(found)
"""
LISTENED = {
    "v4": "127.0.0.1", "v6": "::ffff:127.0.0.1", "own": "127.0.0.3", "unbound": "127.0.0.1", "datagrams": "0.0.0.0",
    "taken": "Address already in use",
}  # fmt: skip


def run(tmp_path, script, **more):
    async def main():
        handle = await process.start(tmp_path / "run", Spec(["sh", "-c", script], base_environment(), **more))
        return await process.wait(handle), handle.log.read_text()

    return asyncio.run(main())


def test_a_program_sees_its_mounts_and_a_private_tmp(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / "a").write_text("hello")
    script = "cat /pfs/in/a; touch /pfs/in/b || echo refused; echo x > /pfs/out/y; ls /tmp | grep -c secret-name; ps ax | wc -l"
    (tmp_path.parent / "secret-name").touch()
    ended, log = run(tmp_path, script, binds=[Bind(source, "/pfs/in", read_only=True), Bind(out, "/pfs/out")])
    assert ended.code == 0
    assert log.startswith("hello")
    assert "refused" in log
    assert (out / "y").read_text() == "x\n"
    assert not (source / "b").exists()
    assert not Path("/pfs").exists()


def test_exit_codes_and_reasons(tmp_path):
    assert run(tmp_path, "exit 7")[0].reason() == "it exited with code 7"
    assert "SIGSEGV" in run(tmp_path, "kill -SEGV $$")[0].reason()


def test_a_program_that_does_not_exist_says_so(tmp_path):
    async def main():
        handle = await process.start(tmp_path / "run", Spec(["no-such-program"], base_environment()))
        return await process.wait(handle), handle.log.read_text()

    ended, log = asyncio.run(main())
    assert ended.code == 127
    assert "cannot start 'no-such-program'" in log


def test_what_a_program_leaves_running_is_killed(tmp_path):
    marker = tmp_path / "mark"
    run(
        tmp_path,
        f"setsid sh -c 'echo $$ > {marker}; sleep 1000' & while [ ! -s {marker} ]; do :; done",
        binds=[Bind(tmp_path, str(tmp_path))],
    )
    assert marker.exists()
    left = subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True, text=True, check=False).stdout.split()
    assert not [pid for pid in left if str(tmp_path) in Path(f"/proc/{pid}/environ").read_text("utf-8", "replace")]


def test_a_stopped_program_gets_sigterm_first(tmp_path):
    async def main():
        script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do read -t 1 x < /dev/zero || :; done"
        handle = await process.start(tmp_path / "run", Spec(["bash", "-c", script], base_environment()))
        await asyncio.to_thread(wait_until, lambda: "ready" in handle.log.read_text(), 10)
        ended = await process.stop(handle)
        return ended, handle.log.read_text(), await process.stop(handle)

    ended, log, again = asyncio.run(main())
    assert (ended.code, again.code) == (3, 3)
    assert "bye" in log


def test_killing_the_watcher_kills_everything_and_is_noticed(tmp_path):
    async def main():
        handle = await process.start(tmp_path / "run", Spec(["sleep", "1000"], base_environment()))
        found = process.find(tmp_path / "run")
        assert found == handle
        assert process.alive(handle)
        os.kill(handle.pid, 9)
        return await process.wait(handle)

    ended = asyncio.run(main())
    assert ended.code == process.LOST
    assert "killed" in ended.reason()


def test_a_pid_that_was_given_to_another_process_is_not_ours(tmp_path):
    handle = process.Handle(tmp_path, os.getpid(), launcher.start_time(os.getpid()) - 1, launcher.boot_id())
    assert not process.alive(handle)
    assert not process.alive(process.Handle(tmp_path, os.getpid(), launcher.start_time(os.getpid()), "another boot"))


@pytest.mark.skipif(
    os.getuid() != 0 or not Path("/usr/bin/python3").exists(), reason="needs root, to become an ordinary user, and a system python"
)
def test_as_an_ordinary_user(tmp_path):
    place = Path("/var/tmp") / f"pdk-launcher-{os.getpid()}"
    try:
        (place / "in").mkdir(parents=True)
        (place / "run").mkdir()
        (place / "in" / "a").write_text("hello")
        kit = place / "src/pdk/kit"
        kit.mkdir(parents=True)
        for module in (launcher, loopback):
            shutil.copy(module.__file__, kit)
        (place / "in" / "listen.py").write_text(LISTENERS)
        script = "cat /pfs/in/a; id -u; echo x > /pfs/out; touch /pfs/in/b || echo refused; /usr/bin/python3 /pfs/in/listen.py"
        spec = {
            "argv": ["sh", "-c", script], "env": {"PATH": "/usr/bin:/bin"}, "cwd": "/", "stdin": None, "loopback": True,
            "binds": [{"source": str(place / "in"), "target": "/pfs/in", "read_only": True}],
        }  # fmt: skip
        (place / "run" / "spec.json").write_text(json.dumps(spec))
        subprocess.run(["chown", "-R", "nobody", str(place)], check=True)
        command = ["/usr/bin/python3", "-I", "-S", str(kit / "launcher.py"), str(place / "run")]
        subprocess.run(command, user="nobody", group="nogroup", extra_groups=[], check=True, env={})
        wait_until((place / "run" / "exit.json").exists, 20)
        log = (place / "run" / "log").read_text()
        if "Operation not permitted" in log:
            pytest.skip(f"this machine allows no user namespaces: {log.strip()}")
        assert log.startswith("hello65534"), log
        assert "refused" in log
        assert ast.literal_eval(log.splitlines()[-1]) == LISTENED
        assert json.loads((place / "run" / "exit.json").read_text())["code"] == 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_the_launcher_needs_the_standard_library_alone():
    words = [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({launcher.__file__!r})"]
    assert subprocess.run(words, check=False).returncode == 0


def test_a_program_listens_on_loopback_only(tmp_path):
    async def main():
        spec = Spec([sys.executable, "-c", LISTENERS], base_environment(), loopback=True)
        handle = await process.start(tmp_path / "run", spec)
        return await process.wait(handle), handle.log.read_text()

    ended, log = asyncio.run(main())
    assert ended.code == 0, log
    assert ast.literal_eval(log) == LISTENED
