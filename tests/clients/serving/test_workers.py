"""Worker processes: several for a model, several models, their deaths, and how they end."""

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests

from conftest import wait_until

WHO = """
import os, signal, threading

def handle(data, context):
    if "die" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    if "wait" in data:
        threading.Event().wait(1.5)
    return [os.getpid()] * len(data)
"""


def ask(runtime, value=1, model="m"):
    return runtime(f"/v1/models/{model}:predict", {"instances": [value]}, headers={"connection": "close"})


def test_several_workers_share_a_socket_and_their_counts(start):
    runtime = start({"m": WHO}, "--workers", "2")
    answers, workers = [], {worker.pid for worker in runtime.workers()}

    def answered():  # the server is ready as soon as one of them is
        with ThreadPoolExecutor(8) as pool:
            answers.extend(pool.map(lambda _: ask(runtime), range(40)))
        return {answer.json()["predictions"][0] for answer in answers} == workers

    wait_until(answered, 60, "answers of both workers")
    assert len(workers) == 2
    assert runtime.process.pid not in workers
    assert {answer.status_code for answer in answers} == {200}
    counted = f'pdk_requests_total{{code="200",model="m",protocol="v1"}} {len(answers)}.0'
    wait_until(lambda: counted in runtime("/metrics").text, 10, "the counts")


def test_a_worker_that_dies_is_started_again(start):
    runtime = start({"m": WHO})
    first = ask(runtime).json()["predictions"][0]
    with pytest.raises(requests.ConnectionError):
        ask(runtime, "die")
    again = ask(runtime)  # waits in the socket's backlog until the new worker accepts it
    assert again.status_code == 200
    assert again.json()["predictions"][0] != first
    assert "killed by SIGKILL" in runtime.log()


def test_workers_that_die_again_and_again_stop_the_server_with_the_reason(start):
    runtime = start({"m": WHO})
    for _ in range(5):
        with pytest.raises(requests.ConnectionError):
            ask(runtime, "die")
    assert runtime.process.wait(30) == 1
    assert "the model cannot be served: the worker of m: it was killed by SIGKILL" in runtime.log()
    assert "5th time within 60 s; the server stops" in runtime.log()


def test_a_model_that_does_not_load_stops_the_server_at_once(start):
    runtime = start({"m": "raise OSError('no such lake')\n"}, fails=True)
    assert runtime.process.wait(5) == 1
    assert "no such lake" in runtime.log()


def test_a_model_that_does_not_answer_its_own_example_is_not_served(start):
    runtime = start({"m": {"handler.py": "def predict(instances):\n    return [1 / x for x in instances]\n",
                           "example.json": '{"instances": [0]}'}}, fails=True)  # fmt: skip
    assert runtime.process.wait(5) == 1
    assert "it does not answer example.json: ZeroDivisionError" in runtime.log()


def test_open_requests_end_before_the_server(start):
    runtime = start({"m": WHO})
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(runtime, "wait")))
    thread.start()
    wait_until(lambda: "pdk_requests_waiting" in runtime("/metrics").text and len(busy(runtime)) > 0, 10, "the request")
    assert runtime.end() == 0
    thread.join()
    assert answers[0].status_code == 200


def busy(runtime):
    """Connections on which the runtime's worker has a request."""
    return [one for worker in runtime.workers() for one in worker.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]


def test_workers_end_with_their_supervisor(start):
    runtime = start({"m": WHO}, "--workers", "2")
    workers = runtime.workers()
    runtime.end(signal.SIGKILL)
    psutil.wait_procs(workers, 20)
    assert not any(worker.is_running() for worker in workers)


def test_several_models_of_a_store_behind_one_port(start):
    runtime = start({"a": WHO, "b": WHO})
    assert runtime("/v1/models").json() == {"models": ["a", "b"]}
    assert runtime("/v2/health/ready").json() == {"ready": True, "models": {"a": True, "b": True}}
    one, two = ask(runtime, model="a"), ask(runtime, model="b")
    assert one.json()["predictions"] != two.json()["predictions"]
    assert (one.headers["pdk-model"], two.headers["pdk-model"]) == ("a", "b")
    assert runtime("/v2/models/b").json()["name"] == "b"
    infer = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]}
    assert runtime("/v2/models/b/infer", infer).json()["outputs"][0]["data"] == two.json()["predictions"]
    assert ask(runtime, model="c").status_code == 404
    assert ask(runtime, "die", model="a").status_code == 503
    assert ask(runtime, model="b").json() == two.json()
    assert ask(runtime, model="a").json() != one.json()
    assert 'pdk_requests_total{code="200",model="a",protocol="v1"} 2.0' in runtime("/metrics").text


def test_requests_are_noted_with_bodies_where_asked(start, tmp_path):
    runtime = start({"m": WHO}, "--request-log", str(tmp_path / "requests"), "--request-log-sample", "1")
    ask(runtime, 7)
    runtime("/v1/models/m:predict", {"rows": []}, headers={"x-request-id": "mine"})
    runtime.end()
    lines = [json.loads(line) for path in (tmp_path / "requests").iterdir() for line in path.read_text().splitlines()]
    assert [line["code"] for line in lines] == [200, 400]
    assert lines[0]["request"] == '{"instances": [7]}'
    assert lines[0]["response"].startswith('{"predictions":[')
    assert lines[1]["x-request-id"] == "mine"
    assert {"pdk-model": "m", "pdk-data-commit": "abc", "protocol": "v1"}.items() <= lines[1].items()
