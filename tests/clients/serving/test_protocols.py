"""The serving runtime, asked over HTTP: protocols, handlers, batches, limits, metrics."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from clients.serving.runtime import starter
from conftest import wait_until

ECHO = """
import threading

class Handler:
    def initialize(self, context):
        self.calls = []

    def preprocess(self, data):
        texts = [row for row in data if isinstance(row, str)]
        if "bad" in texts:
            raise ValueError("bad is no number")
        if "crash" in texts:
            raise RuntimeError("a defect")
        if "sleep" in texts:
            threading.Event().wait(1.0)
        return data

    def inference(self, data):
        return [row * 2 if isinstance(row, (int, float, str)) else row for row in data]

    def postprocess(self, data):
        return data
"""
SIZES = """
def handle(data, context):
    return [{"together": context.batch_size, "id": context.get_request_id(index)} for index in range(len(data))]
"""


@pytest.fixture
def serve(start):
    """Start the runtime on an archive with a handler; a function that asks it, or what it said when it does not start."""

    def begin(handler, config="", properties=""):
        files = {"handler.py": handler, **({"model-config.yaml": config} if config else {})}
        runtime = start({"m": files}, properties=properties, fails=True)
        return runtime if runtime.process.poll() is None else runtime.log()

    return begin


def tensor(data, *shape, kind="FP32", name="x"):
    return {"name": name, "shape": list(shape), "datatype": kind, "data": data}


def test_v1_and_v2_answer_alike(serve):
    ask = serve(ECHO)
    assert ask("/v1/models").json() == {"models": ["m"]}
    assert ask("/v1/models/m").json() == {"name": "m", "ready": True}
    assert ask("/v1/models/m:predict", {"instances": [1, 2.5, "a"]}).json() == {"predictions": [2, 5.0, "aa"]}
    assert ask("/v2").json()["name"] == "pdk"
    assert ask("/v2/health/live").json() == {"live": True}
    assert ask("/v2/health/ready").json()["ready"] is True
    assert ask("/v2/models/m").json()["versions"] == ["v7"]
    assert ask("/v2/models/m/versions/v7/ready").json()["ready"] is True
    answer = ask("/v2/models/m/infer", {"id": "mine", "inputs": [tensor([1, 2, 3], 3, kind="INT64")]})
    assert answer.json() == {
        "model_name": "m", "model_version": "v7", "id": "mine",
        "outputs": [{"name": "predictions", "shape": [3], "datatype": "INT64", "data": [2, 4, 6]}],
    }  # fmt: skip
    for headers in (answer.headers, ask("/v1/models/m:predict", {"instances": ["bad"]}).headers):
        assert {"pdk-model": "m", "pdk-model-version": "v7", "pdk-data-commit": "abc"}.items() <= dict(headers).items()
    matrix = ask("/v2/models/m/infer", {"inputs": [tensor([1, 2, 3, 4], 2, 2)]}).json()["outputs"][0]
    assert (matrix["shape"], matrix["datatype"], matrix["data"]) == ([2, 2], "FP32", [1.0, 2.0, 3.0, 4.0])
    texts = ask("/v2/models/m/infer", {"inputs": [tensor(["a", "b"], 2, kind="BYTES")]}).json()["outputs"][0]
    assert (texts["datatype"], texts["data"]) == ("BYTES", ["aa", "bb"])
    named = {"inputs": [tensor([1, 2], 2), tensor([True, False], 2, kind="BOOL", name="y")], "outputs": [{"name": "y"}]}
    assert ask("/v2/models/m/infer", named).json()["outputs"] == [{"name": "y", "shape": [2], "datatype": "BOOL", "data": [True, False]}]


@pytest.mark.parametrize(
    ("path", "body", "status", "means"),
    [
        ("/v1/models/other:predict", {"instances": [1]}, 404, "does not exist"),
        ("/v2/models/other/infer", {"inputs": []}, 404, "does not exist"),
        ("/v1/models/m:predict", {"rows": [1]}, 400, "instances"),
        ("/v1/models/m:predict", {"instances": []}, 400, "at least one"),
        ("/v1/models/m:predict", [1], 400, "object"),
        ("/v1/models/m:predict", {"instances": ["bad"]}, 400, "bad is no number"),
        ("/v1/models/m:predict", {"instances": ["crash"]}, 500, "a defect"),
        ("/v2/models/m/infer", {"inputs": []}, 400, "at least one tensor"),
        ("/v2/models/m/infer", {"inputs": [{"name": "x"}]}, 400, "shape"),
        ("/v2/models/m/infer", {"inputs": [tensor([1], 2)]}, 400, "do not make a FP32 tensor"),
        ("/v2/models/m/infer", {"inputs": [tensor([1], 1, kind="FP8")]}, 400, "none of"),
        ("/v2/models/m/infer", {"inputs": [tensor(["a"], 1)]}, 400, "do not make"),
        ("/v2/models/m/infer", {"inputs": [tensor([300], 1, kind="UINT8")]}, 400, "do not make|out of bounds"),
        ("/v2/models/m/infer", {"inputs": [tensor([1], 1 << 40)]}, 400, "elements"),
        ("/v2/models/m/infer", {"inputs": [tensor([1], 1), tensor([1, 2], 2, name="y")]}, 400, "different first"),
        ("/v2/models/m/infer", {"inputs": [tensor([1], 1)], "outputs": [{"name": "z"}]}, 400, "no output 'z'"),
    ],
)
def test_what_is_wrong_is_said(one, path, body, status, means):
    answer = one(path, body)
    assert answer.status_code == status
    assert any(word in answer.json()["error"] for word in means.split("|")), answer.text
    assert answer.headers["x-request-id"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One runtime for many questions."""
    starting = starter(tmp_path_factory.mktemp("one"))
    yield next(starting)({"m": ECHO})
    next(starting, None)


@pytest.mark.parametrize(
    "handler",
    [
        "class Model:\n    def predict(self, instances):\n        return [x * 2 for x in instances]\n",
        "class Model:\n    def __init__(self, folder):\n        assert (folder / 'handler.py').exists()\n"
        "    def predict(self, instances):\n        return [x * 2 for x in instances]\n",
        "def predict(instances):\n    return [x * 2 for x in instances]\n",
        "def handle(data, context):\n    return [x * 2 for x in data]\n",
    ],
)
def test_handlers_of_every_form(serve, handler):
    assert serve(handler)("/v1/models/m:predict", {"instances": [1, 2]}).json() == {"predictions": [2, 4]}


@pytest.mark.parametrize(
    ("handler", "means"),
    [
        ("x = 1\n", "has no class with handle"),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("class A:\n    def predict(self, x): ...\nclass B(A):\n    def predict(self, x): ...\n", "several classes"),
        ("class A:\n    def initialize(self, c): raise OSError('no weights')\n    def handle(self, d, c): ...\n", "no weights"),
    ],
)
def test_handlers_that_cannot_serve_say_why(serve, handler, means):
    assert means in serve(handler)


def test_requests_that_come_together_are_answered_together(serve):
    ask = serve(SIZES, "batchSize: 4\nmaxBatchDelay: 400\n")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: ask("/v1/models/m:predict", {"instances": [n]}, headers={"x-request-id": f"r{n}"}), range(4)))
    rows = [answer.json()["predictions"][0] for answer in found]
    assert [row["together"] for row in rows] == [4] * 4
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(4)]
    assert ask("/v1/models/m:predict", {"instances": [1, 2, 3, 4, 5]}).json()["predictions"][0]["together"] == 5


def test_one_bad_request_does_not_spoil_its_batch(serve):
    snapshot = json.dumps({"models": {"m": {"1.0": {"batchSize": 3, "maxBatchDelay": 400}}}})
    ask = serve(ECHO, properties=f"model_snapshot={snapshot}\n")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda x: ask("/v1/models/m:predict", {"instances": [x]}), (1, "bad", 3)))
    assert [answer.status_code for answer in found] == [200, 400, 200]
    assert [found[0].json(), found[2].json()] == [{"predictions": [2]}, {"predictions": [6]}]


def test_a_model_that_takes_too_long_is_not_waited_for(serve):
    ask = serve(ECHO, "responseTimeout: 0.3\n")
    answer = ask("/v1/models/m:predict", {"instances": ["sleep"]})
    assert answer.status_code == 504, answer.text
    wait_until(lambda: ask("/v1/models/m:predict", {"instances": [1]}).status_code == 200, 10, "the next answer")


def test_metrics_count_and_time(serve):
    ask = serve(ECHO)
    for body in ({"instances": [1]}, {"instances": ["bad"]}):
        ask("/v1/models/m:predict", body)
    ask("/v2/models/m/infer", {"inputs": [tensor([1], 1)]})
    text = ask("/metrics").text
    assert 'pdk_requests_total{code="200",model="m",protocol="v1"} 1.0' in text
    assert 'pdk_requests_total{code="400",model="m",protocol="v1"} 1.0' in text
    assert 'pdk_requests_total{code="200",model="m",protocol="v2"} 1.0' in text
    for stage in ("queue", "preprocess", "handler"):
        assert f'pdk_stage_seconds_count{{model="m",stage="{stage}"}} 3.0' in text
    assert 'pdk_stage_seconds_count{model="m",stage="inference"} 2.0' in text
