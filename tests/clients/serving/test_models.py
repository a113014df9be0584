"""Models in their forms: what is made faster and what is not, explanations, and the real TorchServe on our archives."""

import io
import json
import os
import shutil
import subprocess

import pytest
import requests
import torch

from clients.serving.runtime import store_of
from conftest import wait_until
from environments import environment_of
from flow.material import EXPERIMENT

HANDLER = """
import torch

class Handler:
    def initialize(self, context):
        self.model = torch.jit.load(context.system_properties["model_dir"] + "/model.pt").eval()

    def preprocess(self, data):
        return torch.tensor(data, dtype=torch.float32)

    def inference(self, batch):
        with torch.no_grad():
            return self.model(batch)

    def postprocess(self, scores):
        return scores.argmax(dim=1).tolist()

    def handle(self, data, context):
        return [[label, type(self.model).__name__, hasattr(self.model, "fc")] for label in
                self.postprocess(self.inference(self.preprocess(data)))]
"""
EXAMPLE = json.dumps({"instances": [[[[1.0] * 8] * 8] * 3]})


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean(dim=(2, 3)))


class Dice(Net):
    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean(dim=(2, 3))) + torch.rand(2)


def script(model):
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(model.eval()), content)
    return content.getvalue()


def archive(model, handler=HANDLER):
    return {"m": {"handler.py": handler, "model.pt": script(model), "example.json": EXAMPLE}}


def test_a_model_is_served_in_its_fastest_form_where_that_answers_alike(start):
    torch.manual_seed(0)
    fast = start(archive(Net()))
    assert fast("/v1/models/m:predict", json.loads(EXAMPLE)).json()["predictions"][0][1:] == ["RecursiveScriptModule", False]
    dice = start(archive(Dice()))
    assert dice("/v1/models/m:predict", json.loads(EXAMPLE)).json()["predictions"][0][1:] == ["RecursiveScriptModule", True]
    assert "the model is served as it is" in dice.log()


LOADER = """
import torch
from pdk.serving.loading import load_model

class Handler:
    def initialize(self, context):
        self.model = load_model(context)

    def handle(self, data, context):
        with torch.no_grad():
            return [row.tolist() for row in self.model(torch.tensor(data, dtype=torch.float32))]
"""
CLASS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 1, bias=False)

    def forward(self, x):
        return self.fc(x)
"""


def test_models_of_every_form(start):
    torch.manual_seed(0)
    namespace = {}
    exec(CLASS, namespace)
    model = namespace["Net"]().eval()
    scripted, exported, state = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.trace(model, torch.ones(1, 2)), scripted)
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (torch.ones(3, 2),), dynamic_shapes=({0: batch},)), exported)
    torch.save(model.state_dict(), state)
    wanted = model(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    forms = {"model.pt": (scripted, {}), "model.pt2": (exported, {}), "state.pt": (state, {"net.py": CLASS})}
    store = {
        f"m{number}": {"handler.py": LOADER, name: content.getvalue(), **more}
        for number, (name, (content, more)) in enumerate(forms.items())
    }
    runtime = start(store)
    for name in store:
        found = runtime(f"/v1/models/{name}:predict", {"instances": [[1, 2], [3, 4]]}).json()["predictions"]
        assert torch.allclose(torch.tensor(found), torch.tensor(wanted), atol=1e-5), name


def test_explanations_by_the_handler_and_where_there_are_none(start):
    own = start(
        {"m": "class H:\n    def predict(self, x):\n        return x\n    def explain(self, x, c):\n        return [[r, 1] for r in x]\n"}
    )
    assert own("/v1/models/m:explain", {"instances": [5]}).json() == {"explanations": [[5, 1]]}
    none = start({"m": "def predict(instances):\n    return instances\n"})
    answer = none("/v1/models/m:explain", {"instances": [5]})
    assert (answer.status_code, "has no explanations" in answer.json()["error"]) == (501, True)


def test_explanations_by_captum(start):
    pytest.importorskip("captum", reason="Captum is not installed (pdk[explain])")
    runtime = start(archive(Net()))
    found = runtime("/v1/models/m:explain", json.loads(EXAMPLE)).json()["explanations"]
    assert torch.tensor(found).shape == (1, 3, 8, 8)


@pytest.fixture
def torchserve(tmp_path):
    """The real TorchServe 0.12 on a model store."""
    if shutil.which("java") is None:
        pytest.skip("TorchServe needs Java")
    python = environment_of("torchserve", ours=True)
    port = 28700
    (tmp_path / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
        f"metrics_address=http://127.0.0.1:{port + 2}\ngrpc_inference_port={port + 3}\ngrpc_management_port={port + 4}\n"
        "service_envelope=json\ndefault_workers_per_model=1\ninstall_py_dep_per_model=false\n"
    )
    running = []

    def start(store, model, request):
        words = ["torchserve", "--start", "--foreground", "--ncs", "--disable-token-auth", "--model-store", str(store / "model-store"),
                 "--models", f"{model}={model}.mar", "--ts-config", "config.properties"]  # fmt: skip
        env = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        with (tmp_path / "log").open("w") as log:
            running.append(subprocess.Popen([str(python.parent / words[0]), *words[1:]], cwd=tmp_path, env=env, stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, start_new_session=True))  # fmt: skip

        def ask(body):
            try:
                return requests.post(f"http://127.0.0.1:{port}/v1/models/{model}:predict", json=body, timeout=30)
            except requests.ConnectionError:
                return None

        return wait_until(lambda: (answer := ask(request)) is not None and answer.status_code == 200 and answer, 90, "TorchServe")

    yield start
    for process in running:
        os.killpg(process.pid, 15)
        process.wait(30)


def test_torchserve_serves_what_we_write(torchserve, start, tmp_path):
    torch.manual_seed(0)
    files = {path.name: path.read_bytes() for path in EXPERIMENT.iterdir() if path.name in ("handler.py", "example.json")}
    store = store_of(tmp_path / "store", {"dogs": {**files, "model.pt": script(Net())}})
    request = json.loads(files["example.json"])
    theirs, ours = torchserve(store, "dogs", request), start(store)("/v1/models/dogs:predict", request)
    assert theirs.json() == ours.json()
