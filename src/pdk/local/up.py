"""`pdk up`: the supervisor of the five servers. The one place where the parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil

from pdk.durable import write_whole
from pdk.errors import Conflict, EngineError, NotFound, UserError
from pdk.installation import SERVERS, Installation, Ports, is_loopback
from pdk.kit import process, web
from pdk.kit.main import alone
from pdk.kit.reach import FETCHED, SENT, check_allowance, folder_of

START_S = 60.0  # a server that does not answer by then will not
SETTLE_S = 10.0  # after which a server that answers is up, well or not
START_TRIES = 3  # of a server, before `pdk up` gives up at its start
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # between restarts of a server that dies
HUNG_S = 30.0  # a server that does not answer for so long is ended and started again
LOOK_S = 5.0  # between two looks at a server that answers
START_LOOK_S = 0.05  # and at one that is starting
STACKS_S = 0.5  # for a hung server to write down what it is doing
STOP_S = 45.0  # longer than the grace that predictors get
PR_SET_PDEATHSIG = 1
Say = Callable[[str], None]
HEALTH = {"pachyderm": "s3", "determined": "determined", "kserve": "kserve", "gateway": "gateway", "web": "web"}  # the port with /healthz


def check_platform() -> None:
    """Say in the first second that this machine is not one for it.

    Raises:
        UserError: not Linux.
    """
    if platform.system() != "Linux":
        raise UserError(
            f"`pdk up` needs Linux (WSL2 counts), this is {platform.system()}; use a Linux machine, or the real engines from here"
        )


def holder(port: int) -> str:
    """Return who listens on a port, as far as this user may know."""
    with contextlib.suppress(psutil.Error, OSError):
        for entry in psutil.net_connections("tcp"):
            if entry.laddr and entry.laddr.port == port and entry.status == psutil.CONN_LISTEN and entry.pid:
                return f"{psutil.Process(entry.pid).name()} (process {entry.pid})"
    return "another program"


def is_free(bind: str, port: int) -> bool:
    """Return whether a port can be listened on."""
    try:
        web.listen(bind, port).close()
    except OSError:
        return False
    return True


def choose_ports(bind: str, wanted: Ports, *, fixed: Collection[str], say: Say) -> Ports:
    """Return the wanted ports, or free ones instead of those that are taken.

    Raises:
        UserError: one of those named in `fixed` is taken.
    """
    names = [entry.name for entry in fields(Ports)]
    taken = [name for name in names if not is_free(bind, getattr(wanted, name))]
    for name in taken:
        if name in fixed:
            port = getattr(wanted, name)
            raise UserError(f"port {port} ({name}) is taken by {holder(port)}; end that, or choose another one")
    known = {getattr(wanted, name) for name in names}
    spare = (port for port in web.free_ports(bind, 2 * len(names) if taken else 0) if port not in known)  # all different, none that is kept
    changes = dict(zip(taken, spare, strict=False))
    for name, instead in changes.items():
        port = getattr(wanted, name)
        say(f"port {port} ({name}) is taken by {holder(port)}: using {instead} instead")
    return replace(wanted, **changes)


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Only one `pdk up` at a time for a state folder.

    Raises:
        Conflict: there is one.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Conflict(
                f"PDK is running in {state} already (process {file.read().strip() or '?'}); stop that, or use another --state"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_pach_config(installation: Installation) -> None:
    """A ``PACH_CONFIG`` of this installation's own; what pachctl wrote into it stays, the address is brought up to date."""
    path = installation.state / "pachyderm.json"
    context = {"pachd_address": f"grpc://{installation.host}:{installation.ports.pachyderm}"}
    if not is_loopback(installation.bind):
        context["session_token"] = installation.secret()
    try:
        content = json.loads(path.read_text())
        entry = content["v2"].setdefault("contexts", {}).setdefault("pdk", {"project": "default"})
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        entry = {"project": "default"}
        content = {"user_id": "0" * 32, "v2": {"active_context": "pdk", "contexts": {"pdk": entry}, "metrics": False}}
    entry.update(context)
    write_whole(path, json.dumps(content, indent=1))


def environment(installation: Installation) -> dict[str, str]:
    """Return the variables by which every client finds this installation and none of the user's own files."""
    host, ports = installation.host, installation.ports
    return {
        "PDK_STATE": str(installation.state),
        "PACH_CONFIG": str(installation.state / "pachyderm.json"),
        "KUBECONFIG": str(installation.kubeconfig),
        "DET_MASTER": f"http://{host}:{ports.determined}",
        "DET_USER": "determined",
        "DET_PASS": installation.secret(),
        "DET_DEBUG_CONFIG_PATH": str(installation.state / "det"),
        "MLDM_URL": f"grpc://{host}:{ports.pachyderm}",
        "PACHD_PEER_SERVICE_HOST": host,
        "PACHD_PEER_SERVICE_PORT": str(ports.pachyderm),
        "INGRESS_HOST": host,
        "INGRESS_PORT": str(ports.gateway),
    }


def command(server: str, state: Path) -> list[str]:
    """Return what runs a server: no module is imported from the folder that it is started in."""
    return [sys.executable, "-P", "-m", "pdk.web" if server == "web" else f"pdk.local.{server}", str(state)]


def health(installation: Installation, server: str, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """Return a server's own word on its health; None when it does not answer within `timeout_s` seconds."""
    import ssl

    port = getattr(installation.ports, HEALTH[server])
    scheme, context = "http", None
    if server == "kserve":
        scheme = "https"
        try:
            context = ssl.create_default_context(cafile=str(installation.state / "kserve" / "ca.pem"))
        except OSError:
            return None
    try:
        with urllib.request.urlopen(f"{scheme}://{installation.host}:{port}/healthz", timeout=timeout_s, context=context) as answer:  # noqa: S310
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        with error, contextlib.suppress(ValueError):
            return dict(json.load(error))
        return None
    except (OSError, ValueError):
        return None


def failing_checks(answer: Mapping[str, Any]) -> str:
    """Return what fails of an answer of `health`, in the checks' own words; empty where all is well."""
    return "; ".join(f"{check}: {result}" for check, result in dict(answer.get("checks") or {}).items() if result != "ok")


@dataclass(frozen=True)
class Allowed:
    """What whoever starts the servers allows those who call them.

    Args:
        git: folders whose repositories experiments may come from.
        urls: places below which files may be fetched, beside the public web.
        egress: places below which output may be copied.
    """

    git: Sequence[Path] = ()
    urls: Sequence[str] = ()
    egress: Sequence[str] = ()


@dataclass
class Supervisor:
    """Starts the servers, keeps them running, stops them."""

    installation: Installation
    say: Say
    hung_s: float = HUNG_S

    def __post_init__(self) -> None:
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._deaths: dict[str, int] = {}
        self._answers: dict[str, Mapping[str, Any]] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until SIGINT or SIGTERM.

        Raises:
            EngineError: the machine does not allow namespaces, or a server does not start.
        """
        await self._check_namespaces()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        keepers = [asyncio.create_task(self._keep(name)) for name in SERVERS]
        try:
            await self._wait_until_up()
            if not self._stopping.is_set():
                self._announce()
                await self._stopping.wait()
        finally:
            self._stopping.set()
            self.say("stopping; jobs, trials and predictors are ended and go on at the next start")
            await asyncio.gather(*(self._stop(name) for name in SERVERS))
            await asyncio.gather(*keepers, return_exceptions=True)

    async def _check_namespaces(self) -> None:
        scratch = Path(tempfile.mkdtemp(dir=self.installation.state))
        try:
            if not await process.namespaces_work(scratch):
                raise EngineError(f"{process.NAMESPACE_HELP}\n{(scratch / 'log').read_text().strip()}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    async def _spawn(self, name: str) -> asyncio.subprocess.Process:
        libc = ctypes.CDLL(None)
        log = (self.installation.folder(name) / "log").open("ab")
        with log:
            return await asyncio.create_subprocess_exec(
                *command(name, self.installation.state),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            )  # fmt: skip

    async def _keep(self, name: str) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            server = self._processes[name] = await self._spawn(name)
            watch = asyncio.create_task(self._watch(name, server), name=f"watch {name}")
            code = await server.wait()
            watch.cancel()
            self._answers.pop(name, None)
            if self._stopping.is_set():
                return
            deaths = self._deaths[name] = self._deaths.get(name, 0) + 1 if time.monotonic() - began < 60 else 1
            pause = BACKOFF_S[min(deaths, len(BACKOFF_S)) - 1]
            self.say(f"{name} ended with code {code}, starting it again in {pause:g} s; see {self.installation.folder(name)}/log")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _watch(self, name: str, server: asyncio.subprocess.Process) -> None:
        """Keep a server's last answer, and end it when it answers no more; what its threads do at that moment goes to its log."""
        answered, began = time.monotonic() + START_S, time.monotonic()  # it has that long for its first answer
        while not self._stopping.is_set():
            if (answer := await asyncio.to_thread(health, self.installation, name, self.hung_s)) is not None:
                answered = time.monotonic()
                self._answers[name] = answer
            if time.monotonic() - answered > self.hung_s:
                silent = time.monotonic() - max(answered, began)
                self.say(f"{name} has not answered for {silent:.0f} s and is ended; see {self.installation.folder(name)}/log")
                with contextlib.suppress(ProcessLookupError):
                    server.send_signal(signal.SIGUSR1)  # `main.run` has it write down its stacks
                    await asyncio.sleep(STACKS_S)
                    server.kill()
                return
            starts = time.monotonic() < began + START_S and (answer is None or failing_checks(answer))
            await asyncio.sleep(START_LOOK_S if starts else min(LOOK_S, self.hung_s / 4))

    async def _stop(self, name: str) -> None:
        server = self._processes.get(name)
        if server is None or server.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        try:
            await asyncio.wait_for(server.wait(), STOP_S)
        except TimeoutError:
            server.kill()
            await server.wait()

    async def _wait_until_up(self) -> None:
        deadline, settled = time.monotonic() + START_S, time.monotonic() + SETTLE_S
        waiting, failing = set(SERVERS), dict[str, str]()
        while waiting and not self._stopping.is_set():
            for name in sorted(waiting):
                answer = self._answers.get(name)
                failing[name] = failing_checks(answer) if answer else ""
                if answer is not None and not failing[name]:
                    waiting.discard(name)
            for name in sorted(waiting):
                if failing[name] and time.monotonic() > settled:  # it runs; what it needs is not as it should be, and is said
                    self.say(f"{name} is up, and not well: {failing[name]}")
                    waiting.discard(name)
                elif time.monotonic() > deadline or self._deaths.get(name, 0) >= START_TRIES:
                    tail = "\n".join((self.installation.folder(name) / "log").read_text(errors="replace").splitlines()[-5:])
                    said = f"the last lines of its log:\n{tail}" if tail else "it does not answer, and its log is empty"
                    raise EngineError(f"{name} does not start; {said}")
            if waiting:
                await asyncio.sleep(START_LOOK_S)

    def _announce(self) -> None:
        host, ports = self.installation.host, self.installation.ports
        self.say(f"Pachyderm    grpc://{host}:{ports.pachyderm}   S3 http://{host}:{ports.s3}")
        self.say(f"Determined   http://{host}:{ports.determined}")
        self.say(f"Kubernetes   https://{host}:{ports.kserve}")
        self.say(f"Predictions  http://{host}:{ports.gateway}   (Host: NAME.NAMESPACE.{self.installation.domain})")
        self.say(f"Page         http://{host}:{ports.web}")
        self.say(f'PDK is up; Ctrl-C stops it, its state stays in {self.installation.state}. Clients: eval "$(pdk env)"')


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def prepare(state: Path, bind: str, ports: Ports, allowed: Allowed, *, fixed_ports: Collection[str], say: Say) -> Installation:
    """Write down what the servers need to know. Call with the state locked.

    Raises:
        UserError: a folder that is none, or a port that is taken.
    """
    for root in allowed.git:
        if not root.is_dir():
            raise UserError(f"--allow-git {root}: there is no such folder")
    urls = tuple(check_allowance("--allow-url", url, FETCHED) for url in allowed.urls)
    egress = tuple(check_allowance("--allow-egress", url, SENT) for url in allowed.egress)
    for url in egress:
        if url.startswith("file:") and _overlap(folder_of(url).resolve(), state.resolve()):
            raise UserError(
                f"--allow-egress {url}: the folder and the state of this installation, {state}, lie in each other; choose another"
            )
    with contextlib.suppress(NotFound):  # addresses stay what they were, for clients that know them
        last = Installation.load(state).ports
        ports = replace(last, **{name: getattr(ports, name) for name in fixed_ports})
    chosen = choose_ports(bind, ports, fixed=fixed_ports, say=say)
    roots = tuple(str(root.resolve()) for root in allowed.git)
    installation = Installation(state.absolute(), bind, chosen, roots, urls, egress)
    installation.save()
    installation.secret()
    installation.kubeconfig.parent.mkdir(mode=0o700, exist_ok=True)
    write_pach_config(installation)
    if not is_loopback(bind):
        say(f"listening on {bind}: every client needs the secret in {state}/secret")
    return installation


def up(state: Path, bind: str, ports: Ports, allowed: Allowed, *, fixed_ports: Collection[str], say: Say) -> None:
    """Run everything in the foreground."""
    check_platform()
    os.umask(0o077)
    with locked(state):
        state.chmod(0o700)  # it may have existed before
        for name in SERVERS:  # servers of a `pdk up` that was killed are just ending: wait for them
            with alone(state, name):
                pass
        installation = prepare(state, bind, ports, allowed, fixed_ports=fixed_ports, say=say)
        asyncio.run(Supervisor(installation, say).run())


def only(state: Path, name: str, bind: str, ports: Ports, allowed: Allowed, *, fixed_ports: Collection[str], say: Say) -> None:
    """Become one of the servers, in a state folder that is made ready where it is new.

    Raises:
        UserError: there is no server of that name.
    """
    check_platform()
    if name not in SERVERS:
        raise UserError(f"there is no server {name!r}; known are {', '.join(SERVERS)}")
    os.umask(0o077)
    try:
        Installation.load(state)
    except NotFound:
        with locked(state):
            prepare(state, bind, ports, allowed, fixed_ports=fixed_ports, say=say)
    os.execv(sys.executable, command(name, state))  # noqa: S606 - no shell is wanted
