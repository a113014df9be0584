"""Whatever is sent to the Determined server: the answer says what is wrong with it, and never that the server is."""

import base64
import importlib
import re
import time

import pytest
import requests
import yaml
from determined.experimental import Determined

from clients.determined.test_determined import CONFIG, MODEL
from conftest import CHECKOUT, Alone
from pdk.local.determined.rules.forms import Form

WIRE = CHECKOUT / "src/pdk/local/determined/wire"
ROUTE = re.compile(r'route\(\s*"(GET|POST|PATCH|PUT|DELETE)", (f?"[^"]*"|base)')
QUERY = re.compile(r'query(?:_params)?(?:\.get\(|\.getlist\(|, )"(\w+)"')
NAMES = {
    "id": "1",
    "uuid": "no-uuid",
    "name": "m",
    "task": "no-task",
    "allocation": "no-task.1",
    "resource": "r",
    "label:path": "l",
    "verb": "move",
}
WRONG = (7, "x", [1], {"a": 1}, True, -1, 2**70, 1e300, None, [{"a": [None]}])


def calls():
    """Method and path of every route, as the modules of the wire write them down."""
    for module in sorted(WIRE.glob("*.py")):
        text = module.read_text()
        base = (re.findall(r'(?:base, route|api, route) = "([^"]+)"', text) or re.findall(r'base, route = "([^"]+)"', text) or [""])[0]
        for method, path in ROUTE.findall(text):
            spelled = base if path == "base" else path.strip('f"').replace("{api}", base).replace("{base}", base)
            filled = re.sub(r"\{\{(.+?)\}\}", lambda match: NAMES[match.group(1)], spelled)
            if "{" not in filled and "/signals/preemption" not in filled and "/logs" not in filled:
                yield method, filled


def fields():
    """The names of all fields that forms have, as clients spell them."""
    for module in sorted(WIRE.glob("*.py")):
        importlib.import_module(f"pdk.local.determined.wire.{module.stem}")
    found, forms = set(), [Form]
    while forms:
        forms += (one := forms.pop()).__subclasses__()
        found.update(one.__struct_encode_fields__)
    return sorted(found)


@pytest.fixture
def server(tmp_path):
    """A server of its own with a paused experiment and a model, which calls may change."""
    alone = Alone(tmp_path / "state", only="determined").start()
    session = requests.Session()
    session.base = f"http://127.0.0.1:{alone.installation.ports.determined}"
    sdk = Determined(master=session.base, user="determined", password=alone.installation.secret())
    session.headers["authorization"] = f"Bearer {sdk._session.token}"
    file = {"path": "model_def.py", "type": 48, "content": base64.b64encode(MODEL.encode()).decode(), "mode": 420, "mtime": "0"}
    body = {"config": yaml.safe_dump(CONFIG), "modelDefinition": [file], "activate": False}
    assert session.post(f"{session.base}/api/v1/experiments", json=body).status_code == 200
    sdk.create_model("m")
    yield session
    alone.stop()


def test_no_body_and_no_query_meets_a_defect(server):
    known, names = list(calls()), fields()
    assert len(known) > 70, known
    assert len(names) > 30, names
    met, said = [], 0

    def send(method, path, **more):
        answer = server.request(method, server.base + path, **more)
        if answer.status_code >= 500 and answer.status_code != 501:
            met.append((method, path, more, answer.text))
        return answer

    for turn, (method, path) in enumerate(sorted(known, key=lambda call: call[0] == "DELETE" or call[1].endswith("/logout"))):
        if method == "GET":
            query = {name for module in WIRE.glob("*.py") for name in QUERY.findall(module.read_text())}
            for value in ("x", "-1", "9" * 30, "\u0661", ""):
                send("GET", path, params=dict.fromkeys(query, value))
            continue
        for raw in (b"[1]", b'"x"', b"{", b"null", b"[" * 100_000, b'{"a": NaN}', b"\xff"):
            send(method, path, data=raw, headers={"content-type": "application/json"})
        for number, name in enumerate(names):
            answer = send(method, path, json={name: WRONG[(number + turn) % len(WRONG)]})
            said += "does not fit" in answer.text and name in answer.text
    assert not met, met[:5]
    assert said > 50  # and who sent it reads which field it is


def test_what_a_client_leaves_out_or_sends_as_null_has_its_default(server):
    made = server.post(f"{server.base}/api/v1/models", json={"name": "n", "labels": None, "metadata": None}).json()["model"]
    assert (made["labels"], made["metadata"], made["description"]) == ([], {}, "")
    answer = server.post(f"{server.base}/api/v1/models", json={"name": "n2", "labels": "one"})
    assert answer.status_code == 400
    assert "labels" in answer.json()["error"]["error"]


def test_a_question_for_preemption_that_does_not_wait_is_answered_at_once(server):
    assert server.post(f"{server.base}/api/v1/experiments/1/activate").status_code == 200
    task = server.get(f"{server.base}/api/v1/trials/1").json()["trial"]["taskId"]
    began = time.monotonic()
    answer = server.get(f"{server.base}/api/v1/allocations/{task}.0/signals/preemption", params={"timeout_seconds": 0})
    assert answer.json() == {"preempt": False}
    assert time.monotonic() - began < 20  # its own default is a minute
