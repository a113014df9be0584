"""The forms in which instances and tensors travel: pictures and forms over V1, binary tensors and gRPC over V2."""

import json
import struct
import subprocess

import grpc
import numpy as np
import pytest

from clients.serving.runtime import ORIGIN, starter
from environments import environment_of
from pdk.serving.oip import SERVICE, messages
from pdk.serving.tensors import TYPES

HANDLER = """
import numpy as np

def handle(data, context):
    return [answer(row) for row in data]

def answer(row):
    if isinstance(row, dict):
        return {key: len(value) if isinstance(value, (bytes, str)) else value for key, value in row.items()}
    if isinstance(row, np.ndarray):
        return row.sum(axis=0)
    if isinstance(row, bytes):
        return row[::-1]
    return row * 2
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One runtime with HTTP and gRPC."""
    starting = starter(tmp_path_factory.mktemp("forms"))
    yield next(starting)({"m": HANDLER}, "--grpc-port", "28791")
    next(starting, None)


def predict(one, **more):
    answer = one("/v1/models/m:predict", **more)
    return answer.status_code, answer.json().get("predictions", answer.json().get("error"))


def test_forms_and_pictures_as_they_are(one):
    assert predict(one, data=b"\xff\xd8picture", headers={"content-type": "image/jpeg"}) == (200, [{"data": 9, "body": 9}])
    assert predict(one, files={"data": b"12345", "name": (None, "abc")}) == (200, [{"data": 5, "name": 3}])
    assert predict(one, files=[("data", b"1"), ("data", b"22")]) == (200, [{"data": 1}, {"data": 2}])
    code, said = predict(one, files=[("a", b"1"), ("a", b"2"), ("b", b"3")])
    assert (code, "equally often" in said) == (400, True)
    code, said = predict(one, data=b"nothing", headers={"content-type": "multipart/form-data"})
    assert (code, "form cannot be read" in said) == (400, True)
    assert predict(one, data='{"instances": [1]}', headers={"content-type": "application/x-www-form-urlencoded"}) == (200, [2])


def binary(one, header, raw):
    head = json.dumps(header).encode()
    answer = one("/v2/models/m/infer", data=head + raw, headers={"inference-header-content-length": str(len(head))})
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    return json.loads(answer.content[:length]), answer.content[length:]


def valid(answer):
    """The answer, if it is what the Open Inference protocol calls an inference response."""
    assert set(answer) <= {"model_name", "model_version", "id", "parameters", "outputs"}
    assert {"model_name", "outputs"} <= set(answer)
    assert all(isinstance(answer[key], str) for key in ("model_name", "model_version", "id") if key in answer)
    for tensor in answer["outputs"]:
        assert {"name", "shape", "datatype"} <= set(tensor) <= {"name", "shape", "datatype", "parameters", "data"}
        assert isinstance(tensor["name"], str)
        assert tensor["datatype"] in {*TYPES, "BYTES"}
        assert all(isinstance(size, int) and size >= 0 for size in tensor["shape"])
        if "data" in tensor:
            assert np.asarray(tensor["data"], dtype=object).size == np.prod(tensor["shape"])
        else:
            assert tensor["parameters"]["binary_data_size"] >= 0
    return answer


@pytest.mark.parametrize("kind", [*TYPES, "BYTES"])
def test_answers_keep_to_the_protocol(one, kind):
    data = ["a", "b"] if kind == "BYTES" else [True, False] if kind == "BOOL" else [1, 2]
    for more in ({}, {"parameters": {"binary_data_output": True}}, {"outputs": [{"name": "predictions"}]}, {"id": "x"}):
        request = {"inputs": [{"name": "x", "shape": [2], "datatype": kind, "data": data}], **more}
        answer = one("/v2/models/m/infer", request)
        length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
        assert valid(json.loads(answer.content[:length]))["outputs"][0]["shape"] == [2]
        sizes = [
            tensor["parameters"]["binary_data_size"] for tensor in json.loads(answer.content[:length])["outputs"] if "data" not in tensor
        ]
        assert len(answer.content) - length == sum(sizes)


def test_tensors_in_binary_both_ways(one):
    values = np.arange(12, dtype="<f4").reshape(2, 3, 2)
    entry = {"name": "x", "shape": [2, 3, 2], "datatype": "FP32", "parameters": {"binary_data_size": values.nbytes}}
    head, raw = binary(one, {"inputs": [entry], "parameters": {"binary_data_output": True}}, values.tobytes())
    assert head["outputs"] == [{"name": "predictions", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]
    assert np.array_equal(np.frombuffer(raw, "<f4").reshape(2, 2), values.sum(axis=1))
    head, raw = binary(one, {"inputs": [entry]}, values.tobytes())
    assert (head["outputs"][0]["data"], raw) == ([6.0, 9.0, 24.0, 27.0], b"")
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"abc", b"de"))
    entry = {"name": "x", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(texts)}}
    head, raw = binary(one, {"inputs": [entry], "outputs": [{"name": "predictions", "parameters": {"binary_data": True}}]}, texts)
    assert raw == struct.pack("<I", 3) + b"cba" + struct.pack("<I", 2) + b"ed"


@pytest.mark.parametrize(
    ("header", "raw", "means"),
    [
        ({"shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}, b"1234", "4 bytes are left"),
        ({"shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 4}}, b"1234", "has 8 bytes, not 4"),
        ({"shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}, b"12345", "belong to no input"),
        ({"shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": -4}}, b"", "binary_data_size is -4"),
        ({"shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}, b"\xff\0\0\0a", "end within a text"),
        ({"shape": [1], "datatype": {}, "parameters": {"binary_data_size": 1}}, b"1", "is none of"),
    ],
)
def test_binary_tensors_that_are_none(one, header, raw, means):
    head, _ = binary(one, {"inputs": [{"name": "x", **header}]}, raw)
    assert means in head["error"]


@pytest.fixture
def call(one):
    """Call the gRPC service; its answer and initial metadata, or status and details."""
    with grpc.insecure_channel("127.0.0.1:28791") as channel:

        def ask(method, **fields):
            known = messages()
            stub = channel.unary_unary(f"/{SERVICE}/{method}", known[f"{method}Request"].SerializeToString,
                                       known[f"{method}Response"].FromString)  # fmt: skip
            try:
                answer, state = stub.with_call(known[f"{method}Request"](**fields), timeout=20)
            except grpc.RpcError as error:
                return error.code(), error.details()
            return answer, dict(state.initial_metadata())

        yield ask


def test_grpc_answers_as_rest_does(call):
    assert call("ServerLive")[0].live
    assert call("ServerReady")[0].ready
    assert call("ModelReady", name="m", version="v7")[0].ready
    assert call("ModelReady", name="x") == (grpc.StatusCode.NOT_FOUND, "Model with name x does not exist.")
    assert call("ServerMetadata")[0].name == "pdk"
    assert list(call("ModelMetadata", name="m")[0].versions) == [ORIGIN["version"]]
    entry = {"name": "x", "datatype": "INT64", "shape": [2], "contents": {"int64_contents": [3, 4]}}
    answer, headers = call("ModelInfer", model_name="m", id="mine", inputs=[entry])
    assert (answer.id, list(answer.outputs[0].contents.int64_contents)) == ("mine", [6, 8])
    assert {"pdk-model": "m", "pdk-data-commit": "abc", "x-request-id": "mine"}.items() <= headers.items()
    raw = {"name": "x", "datatype": "FP16", "shape": [1, 2]}
    answer, _ = call("ModelInfer", model_name="m", inputs=[raw], raw_input_contents=[np.array([1, 2], "<f2").tobytes()])
    assert np.frombuffer(answer.raw_output_contents[0], "<f2") == [3]
    code, said = call("ModelInfer", model_name="m", inputs=[{**entry, "shape": [3]}])
    assert (code, "do not make a INT64 tensor" in said) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    code, said = call("ModelInfer", model_name="m")
    assert (code, "at least one tensor" in said) == (grpc.StatusCode.INVALID_ARGUMENT, True)


SDK = """
import asyncio, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def main(rest, grpc):
    for binary in (False, True):
        tensor = InferInput("x", [2, 2], "FP32")
        tensor.set_data_from_numpy(np.array([[1, 2], [3, 4]], dtype=np.float32), binary_data=binary)
        client = InferenceRESTClient(config=RESTConfig(protocol="v2"))
        request = InferRequest(model_name="m", infer_inputs=[tensor], parameters={"binary_data_output": binary} if binary else {})
        answer = await client.infer(rest, request, model_name="m")
        assert answer.outputs[0].as_numpy().tolist() == [3.0, 7.0], answer
        print("rest", binary, await client.is_server_ready(rest), await client.is_model_ready(rest, "m"))
    tensor = InferInput("x", [2, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 2], [3, 4]], dtype=np.float32), binary_data=False)
    client = InferenceGRPCClient(url=grpc)
    answer = await client.infer(InferRequest(model_name="m", infer_inputs=[tensor]))
    assert answer.outputs[0].as_numpy().tolist() == [3.0, 7.0], answer
    print("grpc", await client.is_server_live(), await client.is_model_ready("m"))

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_kserve_sdk_asks_in_all_forms(one):
    python = environment_of("kserve")
    done = subprocess.run(
        [str(python), "-W", "ignore", "-c", SDK, one.base, "127.0.0.1:28791"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["rest False True True", "rest True True True", "grpc True True"]
