"""`pdk demo`: the main job, step by step, with the commands that a user would type."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from pdk.errors import PdkError
from pdk.installation import SERVERS, Installation
from pdk.local.up import environment, health
from pdk.shipped import ROOT, Repository, repository

PROJECT, DATA, MODEL, DEPLOY = "pdk-dogs-and-cats", "dogs-and-cats-data", "dogs-and-cats-model", "dogs-and-cats-deploy"
HOST, PREDICT = "dog-cat.models.example.com", "/v1/models/dogs-and-cats:predict"
START_S = 90.0  # until `pdk up` counts as not starting
WANTED, UNTRAINED = 0.95, 0.65  # shares of held-out drawings that a trained model gets right at least, an untrained one at most
LOAD_PERIOD_S = 0.1  # ten requests a second run through the rollout
QUIET, LOUD = "[experiment ", ("pictures:", "report_validation_metrics")  # of a trial's own lines, only these are shown


class DemoFailed(PdkError):
    """A step did not do what it should; the text says what, and where to look."""


@dataclass
class Demo:
    """One run of the demo."""

    state: Path
    console: Console
    times: list[tuple[str, float]] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    step_name: str = "start"
    server: subprocess.Popen[bytes] | None = None
    code: Repository | None = None

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Name a step and take its time."""
        self.step_name = name
        self.console.rule(f"[bold]{name}", align="left")
        began = time.monotonic()
        yield
        self.times.append((name, time.monotonic() - began))

    def variables(self) -> dict[str, str]:
        """Return the environment of the commands."""
        return {
            **os.environ,
            **environment(Installation.load(self.state)),
            "PDK_PROJECT": PROJECT,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }

    def command(self, *words: str, filtered: bool = False) -> str:
        """Print a command, run it, show its output (of long logs the lines that tell something).

        Raises:
            DemoFailed: it exited with another code than 0.
        """
        self.console.print(f"[bold cyan]$ {shlex.join(words)}", highlight=False, markup=True)
        process = subprocess.Popen(
            words, env=self.variables(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        lines: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if not (filtered and line.startswith(QUIET)) or any(word in line for word in LOUD):
                self.console.print(f"  {line.rstrip()[:180]}", markup=False, highlight=False)
        if process.wait():
            tail = "\n".join(lines[-30:])
            raise DemoFailed(f"the command failed with exit code {process.returncode}:\n{tail}")
        return "\n".join(lines)


def start(demo: Demo, code: Repository) -> None:
    """Run `pdk up` in the demo's state folder and wait for it.

    Raises:
        DemoFailed: it ended, or did not answer in time.
    """
    words = [sys.executable, "-P", "-m", "pdk.cli.main", "up", "--state", str(demo.state), "--allow-git", str(code.path)]
    demo.console.print(f"[bold cyan]$ pdk up --state {demo.state} --allow-git {code.path} &", highlight=False)
    log = demo.state / "up.log"
    demo.state.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        demo.server = subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if demo.server.poll() is not None:
            raise DemoFailed(f"`pdk up` ended:\n{log.read_text()}")
        with contextlib.suppress(PdkError):
            installation = Installation.load(demo.state)
            if all((health(installation, name) or {}).get("status") == "ok" for name in SERVERS):
                for line in log.read_text().splitlines():
                    demo.console.print(f"  {line}", markup=False, highlight=False)
                return
        time.sleep(0.1)
    raise DemoFailed(f"`pdk up` did not answer within {START_S:g} s; see {log}")


def ask(installation: Installation, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return one prediction through the gateway: status, headers, body; status 0 when nobody answered."""
    url = f"http://{installation.host}:{installation.ports.gateway}{PREDICT}"
    request = urllib.request.Request(url, body, {"Host": HOST, "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - made here
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()
    except OSError as error:
        return 0, {}, str(error).encode()


def held_out() -> list[tuple[Path, int]]:
    """Return the drawings that training never sees, with their labels."""
    folder = ROOT / "sample-data" / "held-out"
    return [(path, 1) for path in sorted(folder.glob("cats/*.jpg"))] + [(path, 0) for path in sorted(folder.glob("dogs/*.jpg"))]


def accuracy(installation: Installation) -> float:
    """Return the share of held-out drawings that the endpoint gets right.

    Raises:
        DemoFailed: a request was not answered.
    """
    from pdk.cli.predictions import request_body

    pictures = held_out()
    status, _, raw = ask(installation, json.dumps(request_body([path for path, _ in pictures])).encode())
    if status != 200:
        raise DemoFailed(f"the endpoint answered {status}: {raw.decode()[:500]}")
    answers = json.loads(raw)["predictions"]
    return float(sum(answer == label for answer, (_, label) in zip(answers, pictures, strict=True)) / len(pictures))


def untrained_accuracy() -> float:
    """Return what the same net gets right before training."""
    sys.path.insert(0, str(ROOT / "experiments" / "dogs-and-cats"))
    import handler  # type: ignore[import-not-found]
    import model_def  # type: ignore[import-not-found]
    import numpy as np
    import torch

    torch.manual_seed(0)
    net, pictures = model_def.Net(0.0).eval(), held_out()
    batch = torch.from_numpy(np.stack([handler.pixels(path.read_bytes()) for path, _ in pictures]))
    with torch.inference_mode():
        answers = net(handler.normalize(batch)).argmax(dim=1).tolist()
    return float(sum(answer == label for answer, (_, label) in zip(answers, pictures, strict=True)) / len(pictures))


class Load(threading.Thread):
    """Requests at a steady pace; counts answers by model version, and failures."""

    def __init__(self, installation: Installation, body: bytes) -> None:
        super().__init__(daemon=True)
        self.installation, self.body = installation, body
        self.answers: dict[str, int] = {}
        self.failures: list[str] = []
        self._end = threading.Event()

    def run(self) -> None:
        """Until `finish`."""
        following = time.monotonic()
        while not self._end.is_set():
            status, headers, raw = ask(self.installation, self.body)
            if status == 200:
                version = headers.get("pdk-model-version", "?")
                self.answers[version] = self.answers.get(version, 0) + 1
            else:
                self.failures.append(f"{status}: {raw.decode('utf-8', 'replace')[:200]}")
            following += LOAD_PERIOD_S
            self._end.wait(max(0.0, following - time.monotonic()))

    def finish(self) -> None:
        """Stop, and wait for the last answer."""
        self._end.set()
        self.join()


def predict(demo: Demo) -> None:
    """The guide's two requests, with curl where it is installed.

    Raises:
        DemoFailed: a wrong answer.
    """
    ports = Installation.load(demo.state).ports
    for kind, label in (("cat", 1), ("dog", 0)):
        body = f"sample-data/requests/{kind}.json"
        if shutil.which("curl"):
            words: Sequence[str] = ("curl", "-s", "-H", f"Host: {HOST}", f"http://127.0.0.1:{ports.gateway}{PREDICT}", "-d", f"@{body}")
        else:
            words = ("pdk", "predict", "dog-cat", "dogs-and-cats", body)
        answer = demo.command(*words)
        if json.loads(answer) != {"predictions": [label]}:
            raise DemoFailed(f"a {kind} was answered {answer}, {{'predictions': [{label}]}} is right")


def put(demo: Demo, folder: str, path: str) -> str:
    """Commit a folder of pictures; returns the commit's ID."""
    output = demo.command("pdk", "put", "file", f"{DATA}@master:{path}", "-f", f"sample-data/{folder}", "-r")
    return output.split(" in commit ")[1].split()[0]


def follow(demo: Demo, commit: str) -> None:
    """Watch the train and deploy jobs of a commit."""
    demo.command("pdk", "logs", "--follow", f"{MODEL}@{commit}", filtered=True)
    demo.command("pdk", "logs", "--follow", f"{DEPLOY}@{commit}", filtered=True)


def main_job(demo: Demo) -> None:
    """All steps."""
    code = demo.code = repository(demo.state.parent / "code")  # beside the state, which no job may look into
    if code.changed:
        demo.console.print("[yellow]the working tree of experiments/ differs from the commit: the committed code is trained")
    with demo.step("start the engines"):
        start(demo, code)
        installation = Installation.load(demo.state)
    with demo.step("create project, repo and pipelines"):
        demo.command("pdk", "create", "project", PROJECT)
        demo.command("pdk", "create", "repo", DATA)
        specs = "pipelines/dogs-and-cats"
        variables = ("--env", f"GIT_URL={code.path}", "--env", f"GIT_REF={code.sha}")
        demo.command("pdk", "create", "pipeline", "-f", f"{specs}/training-pipeline.json", *variables)
        demo.command("pdk", "create", "pipeline", "-f", f"{specs}/deployment-pipeline.json")
    with demo.step("commit pictures: train, archive, serve"):
        follow(demo, put(demo, "dogs-and-cats", "/data1"))
    with demo.step("predict"):
        predict(demo)
        share, before = accuracy(installation), untrained_accuracy()
        demo.numbers |= {"trained": share, "untrained": before}
        demo.console.print(f"40 drawings that training never saw: {share:.0%} right (an untrained model: {before:.0%})", highlight=False)
        if share < WANTED or before > UNTRAINED:
            expected = f"at least {WANTED:.0%} were expected, and at most {UNTRAINED:.0%} untrained"
            raise DemoFailed(f"{share:.1%} of the held-out drawings are right, untrained {before:.1%}; {expected}")
    with demo.step("commit a few more: train on, roll over under load"):
        load = Load(installation, (ROOT / "sample-data/requests/cat.json").read_bytes())
        load.start()
        try:
            commit = put(demo, "more-dogs-and-cats", "/data2")
            follow(demo, commit)
            deadline = time.monotonic() + 30
            while load.answers.get(commit, 0) < 10 and time.monotonic() < deadline:
                time.sleep(LOAD_PERIOD_S)
        finally:
            load.finish()
        demo.numbers["failed"] = len(load.failures)
        total, new = sum(load.answers.values()), load.answers.get(commit, 0)
        demo.console.print(f"{total} requests answered, {new} of them by the new version, {len(load.failures)} failed", highlight=False)
        if load.failures or not new:
            raise DemoFailed(f"the rollover lost requests or never came: {load.failures[:3]}, answers by version {load.answers}")
        share = accuracy(installation)
        demo.console.print(f"the new version: {share:.0%} of the 40 drawings right", highlight=False)
        predict(demo)


def run(state: Path | None, *, keep: bool) -> bool:
    """Run the demo; whether it went well."""
    console = Console(highlight=False, soft_wrap=True)
    own = state is None
    if own:
        base = (ROOT if (ROOT / ".git").exists() else Path.cwd()) / ".pdk"
        base.mkdir(exist_ok=True)
        state = Path(tempfile.mkdtemp(prefix="demo-", dir=base))
    assert state is not None
    demo, failure = Demo(state.absolute(), console), ""
    try:
        main_job(demo)
    except PdkError as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    console.rule(align="left")
    removed = own and not keep and not failure
    again = (
        f"KEEP=1 make demo, or pdk demo --state DIR and then pdk up --state DIR --allow-git {demo.code.path if demo.code else ROOT}"
        if removed
        else f"pdk up --state {demo.state}"
    )
    console.print(f"to keep it running: {again}", markup=False)
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in demo.times)
    if failure:
        console.print(
            f"demo: FAILED in step {demo.step_name!r}: {failure}\nlook into {demo.state} (logs in pachyderm/, determined/, kserve/)",
            markup=False,
        )
    else:
        console.print(f"demo: ok ({times})", markup=False)
    stop(demo, wait=keep and not failure)
    if removed:
        shutil.rmtree(demo.state, ignore_errors=True)
    return not failure


def stop(demo: Demo, *, wait: bool) -> None:
    """End `pdk up`; with `wait`, when the user says so."""
    if demo.server is None:
        return
    with contextlib.suppress(KeyboardInterrupt):
        if wait:
            demo.server.wait()
    if demo.server.poll() is None:
        demo.server.send_signal(signal.SIGTERM)
        demo.server.wait()
