"""The same experiment on photographs, through the whole pipeline; slow."""

import base64
import json
import shutil

import pytest
import requests

from flow.material import PHOTOS, git_repo
from flow.test_flow import Flow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PHOTOS.exists(), reason=f"the photographs are not here ({PHOTOS.name} of the shared test data)"),
]


def accuracy(up, name):
    """The share of the test photographs that the endpoint gets right."""
    right, files = 0, sorted((PHOTOS / "test").glob("*.jpg"))
    for start in range(0, len(files), 20):
        part = files[start : start + 20]
        body = json.dumps({"instances": [{"data": base64.b64encode(file.read_bytes()).decode()} for file in part]})
        url = f"http://127.0.0.1:{up.installation.ports.gateway}/v1/models/{name}:predict"
        answer = requests.post(url, data=body, headers={"Host": f"{name}.models.example.com"}, timeout=60)
        right += sum(label == file.name.startswith("cat") for label, file in zip(answer.json()["predictions"], part, strict=True))
    return right / len(files)


def test_photographs_through_the_endpoint(up, name):
    code = up.state.parent / name
    code.mkdir()
    git_repo(code, epochs=40)
    shutil.rmtree(code / "experiment" / "__pycache__", ignore_errors=True)
    flow = Flow(up, name, code)
    flow.pipelines(code, "main")
    files = sorted((PHOTOS / "train").glob("*.jpg"), key=lambda file: int(file.name.split(".")[1]))
    first = flow.put(files[:720])
    job = flow.wait("deploy", first, 500)
    assert job.state == "SUCCESS", job.reason
    full = accuracy(up, name)
    second = flow.put(files[720:], "/data2")
    job = flow.wait("deploy", second, 200)
    assert job.state == "SUCCESS", job.reason
    assert "on the 80 files added" in flow.log("train", second)
    more = accuracy(up, name)
    print(f"photographs: {full:.1%} right, {more:.1%} after the incremental step")
    assert full >= 0.70
    assert more >= full - 0.05
