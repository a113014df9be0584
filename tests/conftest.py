"""Shared fixtures: a running installation, one server alone, the clients that need no environment of their own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pdk.errors import PdkError
from pdk.installation import SERVERS, Installation
from pdk.local.up import environment, health

SOURCES = {  # where a program comes from; the others are Debian packages of their own name
    "sshd": "on Debian: apt-get install openssh-server",
    "pachctl": "it comes with Pachyderm's releases, and the testbed builds it",
    "kubectl": "it comes with Kubernetes' releases, and the testbed builds it",
    "det": "it comes with the determined SDK: make setup",
}
PAUSE_S = 0.02  # between two looks at a condition
CHECKOUT = Path(__file__).parents[1]


def wait_until(condition, timeout=60.0, what="the condition"):
    """Poll until `condition()` is true and return its value; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout:g} s")
        time.sleep(PAUSE_S)  # the one pause of all tests: it only bounds how often the condition is asked for


def program(name, *places):
    """A client program on PATH or at one of `places`; without it the test is skipped, or fails where it was asked for on real engines."""
    for place in (shutil.which(name), *places):
        if place and Path(place).exists():
            return str(place)
    missing = f"{name} is not installed here; {SOURCES.get(name, f'on Debian: apt-get install {name}')}"
    if os.environ.get("PDK_TEST_INGRESS"):
        pytest.fail(missing)
    pytest.skip(missing)
    return None


@dataclass
class Up:
    """A `pdk up` of its own."""

    state: Path
    process: subprocess.Popen | None = None
    extra: tuple[str, ...] = ()

    @property
    def installation(self) -> Installation:
        return Installation.load(self.state)

    @property
    def egress(self) -> Path:
        """The folder that pipelines may copy output to."""
        return self.state.parent.with_name(f"{self.state.parent.name}-egress")

    @property
    def env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, **environment(self.installation), "PATH": path, "PDK_STATE": str(self.state)}

    def start(self):
        words = [sys.executable, "-m", "pdk.cli.main", "up", "--state", str(self.state), "--allow-git", str(self.state.parent)]
        words += ["--allow-egress", f"file://{self.egress}", *self.extra]
        for folder in (self.state, self.egress):
            folder.mkdir(parents=True, exist_ok=True)
        with (self.state / "up.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.healthy, 90, f"pdk up in {self.state}")
        return self

    def healthy(self):
        if self.process is not None and self.process.poll() is not None:
            pytest.fail(f"pdk up ended: {(self.state / 'up.log').read_text()}")
        with contextlib.suppress(PdkError):
            return all((health(self.installation, name) or {}).get("status") == "ok" for name in SERVERS)
        return False

    def processes(self):
        """PIDs of everything that works for this state folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if str(self.state).encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def server(self, name):
        """The PID of one of the servers."""
        wanted = f"pdk.local.{name}"  # a child of the supervisor: what the server is just starting has its command line for a moment
        return next(child.pid for child in psutil.Process(self.process.pid).children() if wanted in child.cmdline())

    def kill_all(self):
        """kill -9 of the supervisor and its servers."""
        servers = [pid for pid in self.processes() if b"launcher.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # all at once: servers end by themselves when they see their supervisor die
            for pid in servers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(90)
        self.process = None

    def run(self, *words, check=True, stdin=None, cwd=None):
        """Run a client; its output (standard error included)."""
        done = subprocess.run(
            words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False, input=stdin, cwd=cwd
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(words)} exited {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def fails(self, *words, code=None):
        """Run a client that must fail; its output."""
        done = subprocess.run(words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
        assert done.returncode != 0, done.stdout
        if code is not None:
            assert done.returncode == code, done.stdout
        return done.stdout


@dataclass
class Alone(Up):
    """One server alone."""

    only: str = "pachyderm"

    def spawn(self):
        words = [sys.executable, "-m", "pdk.cli.main", "up", "--only", self.only, "--state", str(self.state)]
        with (self.state.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def start(self):
        self.spawn()
        wait_until(self.healthy, 60, "the server")
        return self

    def answer(self):
        """What it says of its health; None where it says nothing."""
        with contextlib.suppress(PdkError):
            return health(Installation.load(self.state), self.only)

    def healthy(self):
        return (self.answer() or {}).get("status") == "ok"

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def up(tmp_path_factory):
    """One installation for all tests that do not harm it."""
    running = Up(tmp_path_factory.mktemp("up") / "state").start()
    yield running
    running.stop()
    left = [pid for pid in running.processes() if pid != os.getpid()]
    assert not left, f"processes are left over: {left}"


@pytest.fixture
def own_up(tmp_path):
    """An installation that the test may kill."""
    running = Up(tmp_path / "state").start()
    yield running
    running.stop()


@pytest.fixture
def small_disk(tmp_path):
    """A file system with 4 MB of room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=False).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def name():
    """A name that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def pachctl():
    return program("pachctl", Path.home() / ".cache/pdk-testbed/bin/pachctl")


@pytest.fixture(scope="session")
def kubectl():
    return program("kubectl")


@pytest.fixture(scope="session")
def det():
    return program("det", Path(sys.executable).parent / "det")


@pytest.fixture(scope="session")
def sdk(up):
    """The determined SDK, logged in."""
    from determined.experimental import Determined

    installation = up.installation
    return Determined(master=f"http://127.0.0.1:{installation.ports.determined}", user="determined", password=installation.secret())


def pytest_addoption(parser):
    parser.addoption("--engine", choices=("local", "testbed"), default="local", help="the Pachyderm that tests/recorded runs against")
