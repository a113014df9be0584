"""The Determined master that the cases run against: this project's server, or a real one where DET_MASTER is set.

With DET_MASTER (and DET_USER, DET_PASS; it needs an agent with two slots) and ``--snapshot-update`` what it answers is written down;
everywhere else that record is compared with.
"""

import base64
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import requests
from determined.experimental import Determined
from syrupy.extensions.json import JSONSnapshotExtension

from conftest import wait_until
from pdk.environment import named_determined
from recorded.engine import FAILED
from recorded.transcript import Transcript

UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(?:Z|[+-]\d\d:?\d\d)?")
MASKED = {
    "id", "experimentId", "trialId", "trialIds", "taskId", "taskIds", "jobId", "allocationId", "projectId", "workspaceId", "parentId",
    "forkedFrom", "userId", "user_id", "experiment_seed", "duration", "startTime", "endTime", "reportTime", "creationTime",
    "lastUpdatedTime", "wallClockTime", "masterId", "clusterId", "clusterName", "searcherMetricValueSigned", "checkpointSize",
    "totalCheckpointSize", "modelDefinitionSize", "metadataSize", "key", "bestTrialId", "best_trial_id", "token", "logRetentionDays",
}  # fmt: skip
TERMINAL = ("STATE_COMPLETED", "STATE_ERROR", "STATE_CANCELED")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, answer):
        super().__init__(answer.text)
        self.status, self.text = answer.status_code, answer.text


class Notes(Transcript):
    """A transcript of a master's answers; of what is said to differ only the local server's are looked at."""

    real = bool(os.environ.get("DET_MASTER"))

    def mask(self, value, key=""):
        if key in MASKED and not isinstance(value, dict | list):
            return "…"
        if isinstance(value, float) and value.is_integer():
            return int(value)
        value = super().mask(value, "")
        if isinstance(value, str):
            value = TIME.sub("TIME", UUID.sub("UUID", value))
        return value

    def call(self, title, work, *, show=None, differs=""):
        """Do a call and note its answer."""
        answer = work()
        noted = {"answer": self.mask(show(answer) if show else answer)}
        self.steps.append({"call": title, "differs": differs} if differs else {"call": title, **noted})
        return answer

    def fails(self, title, work, status, means, *, differs=""):
        """Do a call that both refuse; `means` must stand in the text of both, the HTTP status (or which there may be) is noted."""
        try:
            found, text = 200, json.dumps(work())
        except Refused as refused:
            found, text = refused.status, refused.text
        allowed = status if isinstance(status, tuple) else (status,)
        if not differs or not self.real:
            assert found in allowed, f"{title}: {found} instead of {status}: {text[:500]}"
            assert re.search(means, text, re.IGNORECASE), f"{title}: {found}: {text[:500]}"
        self.steps.append({"call": title, "differs": differs} if differs else {"call": title, "status": list(allowed), "means": means})


class Master:
    """Clients of a master, and a workspace of the case's own."""

    def __init__(self, address, user, password, home):
        self.address, self.user, self.password = address, user, password
        self.session = requests.Session()
        login = {"username": user, "password": password}
        self.session.headers["Authorization"] = "Bearer " + self.rest("POST", "/api/v1/auth/login", login)["token"]
        self.name = f"w{uuid.uuid4().hex[:10]}"
        self.notes = Notes({self.name: "NAME", address: "MASTER"})
        self.env = {
            **os.environ, "DET_MASTER": address, "DET_USER": user, "DET_PASS": password, "HOME": str(home), "COLUMNS": "400",
        }  # fmt: skip
        self._sdk = None

    @property
    def sdk(self):
        if self._sdk is None:
            self._sdk = Determined(master=self.address, user=self.user, password=self.password)
        return self._sdk

    def rest(self, method, path, body=None, **query):
        """The JSON answer of a call."""
        answer = self.session.request(method, self.address + path, json=body, params=query, timeout=60)
        self.session.cookies.clear()  # the token alone counts
        if answer.status_code >= 300:
            raise Refused(answer)
        return answer.json() if answer.content.strip() else {}

    def det(self, *words, means="", code=0, show=None):
        """A step that runs det."""
        program = Path(sys.executable).parent / "det"
        done = subprocess.run([program, *words], env=self.env, capture_output=True, text=True, timeout=120, check=False)
        printed = done.stdout + done.stderr
        assert done.returncode == code, f"det {' '.join(words)}: {done.returncode}: {printed}"
        if means:
            assert re.search(means, printed, re.IGNORECASE), f"det {' '.join(words)}: {printed}"
            noted = {"means": means}
        else:
            noted = {"printed": self.notes.mask(show(done.stdout) if show else plain(done.stdout))}
        call = re.sub(r"(?<= )\d+\b", "N", self.notes.mask("det " + " ".join(words)))
        self.notes.steps.append({"call": re.sub(r"/\S+/", "", call), "exit": done.returncode, **noted})
        return done.stdout

    def create(self, config, code="", *, activate=True, **more):
        """Create an experiment; the answer."""
        files = [
            {
                "path": "train.py",
                "type": 48,
                "content": base64.b64encode(code.encode()).decode(),
                "mode": 0o644,
                "mtime": "0",
                "uid": 0,
                "gid": 0,
            }
        ]
        body = {"config": config if isinstance(config, str) else json.dumps(config), "modelDefinition": files, "activate": activate, **more}
        return self.rest("POST", "/api/v1/experiments", body)

    def ended(self, experiment):
        """An experiment's record once it has ended."""

        def found():
            now = self.rest("GET", f"/api/v1/experiments/{experiment}")["experiment"]
            return now if now["state"] in TERMINAL else None

        return wait_until(found, 120, f"the end of experiment {experiment}")

    def trials(self, experiment):
        return self.rest("GET", f"/api/v1/experiments/{experiment}/trials")["trials"]


def plain(text):
    """Output without column widths, numbers and times."""
    text = re.sub(r"\b(experiment|trial|version|workspace|project) \d+", r"\1 N", TIME.sub("TIME", text), flags=re.IGNORECASE)
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
    return [line for line in (re.sub(r"^[-+| ]+$", "", line) for line in lines) if line]


def real_master():
    """Address, user and password of the real master that the environment names."""
    return named_determined()


@pytest.fixture
def master(request, tmp_path):
    if os.environ.get("DET_MASTER"):
        address, user, password = real_master()
    else:
        installation = request.getfixturevalue("up").installation
        address, user, password = f"http://127.0.0.1:{installation.ports.determined}", "determined", installation.secret()
    return Master(address, user, password, tmp_path)


@pytest.fixture
def noted(master, snapshot, request):
    """After the case: its notes are what the real master answered."""
    yield
    if not request.node.stash.get(FAILED, False):
        assert master.notes.steps == snapshot(extension_class=JSONSnapshotExtension, name="steps")


@pytest.fixture
def t(master, noted):
    return master.notes
