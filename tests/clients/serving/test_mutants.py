"""Thousands of broken archives and requests: refused with a reason, nothing written elsewhere, no worker lost."""

import asyncio
import io
import json
import random
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from pdk.errors import UserError
from pdk.mar import Archive, Manifest, write
from pdk.serving import bodies, tensors
from pdk.serving.runner import Rejected

MANY, LIVE = 10_000, 500
QUIET = settings(max_examples=MANY, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
NAMES = [
    "../../evil",
    "/etc/evil",
    "a/../../evil",
    "C:\\evil",
    "handler.py",
    "HANDLER.PY",
    "MAR-INF/MANIFEST.json",
    "a\0b",
    "é",
    "..",
    "link",
]
BINARY = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}]}
REQUESTS = [
    b'{"instances": [1, 2, {"data": "abc"}]}',
    json.dumps(
        {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}], "outputs": [{"name": "predictions"}]}
    ).encode(),
    json.dumps({"inputs": [{"name": "x", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]}).encode(),
    json.dumps(BINARY).encode() + np.ones(2, "<f4").tobytes(),
    b'--b\r\nContent-Disposition: form-data; name="data"; filename="f"\r\n\r\n12345\r\n--b--\r\n',
]
TYPES = ["application/json", "multipart/form-data; boundary=b", "multipart/form-data", "image/jpeg", "", "text/plain"]


def seed(folder):
    """A good archive's bytes."""
    path = folder / "seed.mar"
    write(path, Manifest("m", "1", "handler.py"), {"handler.py": b"def predict(x):\n    return x\n", "deep/file.txt": b"content" * 50})
    return path.read_bytes()


def spoiled(raw, random_):
    """The bytes with something wrong: flipped, cut, doubled, or a zip with members that must not be."""
    kind = random_.randrange(5)
    if kind == 0:
        made = bytearray(raw)
        for _ in range(random_.randrange(1, 20)):
            made[random_.randrange(len(made))] = random_.randrange(256)
        return bytes(made)
    if kind == 1:
        return raw[: random_.randrange(len(raw))]
    if kind == 2:
        at, size = random_.randrange(len(raw)), random_.randrange(1, 60)
        return raw[:at] + raw[at : at + size] * random_.randrange(2, 4) + raw[at + size :]
    if kind == 3:
        return random_.randbytes(random_.randrange(200))
    made = io.BytesIO(raw)
    with zipfile.ZipFile(made, "a") as archive:
        info = zipfile.ZipInfo(random_.choice(NAMES) + random_.choice(["", "1"]))
        info.external_attr = random_.choice([0o100644, 0o120777, 0o60644, 0o40755]) << 16
        with_content = random_.choice([b"", b"content", b"\0" * (2 << 20)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that is there already
            archive.writestr(info, with_content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def test_archives(tmp_path):
    raw, inside = seed(tmp_path), tmp_path / "inside"
    taken = refused = 0

    @QUIET
    @given(st.integers(0, 2**64))
    def check(number):
        nonlocal taken, refused
        path = inside / "one.mar"
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
        path.write_bytes(spoiled(raw, random.Random(number)))
        try:
            Archive.open(path).extract(inside / "target")
            taken += 1
        except UserError as error:
            refused += bool(str(error))
        assert {entry.name for entry in inside.iterdir()} <= {"one.mar", "target"}
        assert {entry.name for entry in tmp_path.iterdir()} == {"seed.mar", "inside"}
        for entry in inside.rglob("*"):
            assert not entry.is_symlink()

    check()
    assert taken + refused >= MANY
    assert refused > MANY / 2


def spoiled_request(random_):
    """A request's body and headers with something wrong."""
    raw = bytearray(random_.choice(REQUESTS))
    for _ in range(random_.randrange(4)):
        at = random_.randrange(len(raw) + 1)
        choice = random_.randrange(4)
        if choice == 0 and raw:
            raw[at - 1] = random_.randrange(256)
        elif choice == 1:
            del raw[at : at + random_.randrange(10)]
        elif choice == 2:
            raw[at:at] = random_.choice(
                [b"[", b"{", b"-1", b"1e999", b'"x":', b"null", b"99999999999999999999", b"\xff", b"[" * 2000, b"NaN"]
            )
        else:
            raw[at:at] = bytes(raw[at : at + random_.randrange(20)])
    headers = {"content-type": random_.choice(TYPES)}
    if random_.random() < 0.3:
        headers["inference-header-content-length"] = random_.choice(
            ["0", "5", str(len(raw)), "-1", "x", "99999", str(max(0, len(raw) - 8))]
        )
    return bytes(raw), headers


def test_requests():
    async def v1(body, headers):
        return await bodies.instances(Headers(headers), body)

    def v2(body, headers):
        header, parts = tensors.split(body, headers.get(tensors.HEADER_LENGTH))
        return tensors.instances_of(tensors.inputs_of(bodies.parse(header), parts))

    loop, fine = asyncio.new_event_loop(), 0

    @QUIET
    @given(st.integers(0, 2**64))
    def check(number):
        nonlocal fine
        body, headers = spoiled_request(random.Random(number))
        for parse in (lambda: loop.run_until_complete(v1(body, headers)), lambda: v2(body, headers)):
            try:
                fine += bool(parse())
            except (Rejected, UserError, RecursionError):  # the last is answered with 400 as well
                continue

    check()
    loop.close()
    assert fine > 100


READER = """
import tempfile
from pathlib import Path
from pdk.errors import UserError
from pdk.mar import Archive

def predict(instances):
    for one in instances:
        if isinstance(one, dict) and isinstance(one.get("body"), bytes) and one["body"][:2] != b"{}":
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "one.mar"
                path.write_bytes(one["body"])
                try:
                    Archive.open(path).extract(Path(folder) / "target")
                except UserError as error:
                    raise ValueError(str(error)) from error
    return [0] * len(instances)
"""


def test_live_workers_outlive_them(start, tmp_path):
    raw = seed(tmp_path)
    runtime = start({"m": READER})
    workers = {worker.pid for worker in runtime.workers()}
    random_, codes = random.Random(1), {}
    for _ in range(LIVE):
        body, headers = spoiled_request(random_)
        for path in ("/v1/models/m:predict", "/v2/models/m/infer"):
            answer = runtime(path, data=body, headers=headers)
            codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
            assert answer.status_code in (200, 400), (answer.text, body, headers)
            assert answer.status_code == 200 or answer.json()["error"]
        answer = runtime("/v1/models/m:predict", data=spoiled(raw, random_), headers={"content-type": "image/x-archive"})
        assert answer.status_code in (200, 400), answer.text
        assert answer.status_code == 200 or answer.json()["error"]
    assert codes[400] > LIVE / 2
    assert {worker.pid for worker in runtime.workers()} == workers
    assert not list(Path("/").glob("etc/evil*"))
    assert not (Path.cwd() / "evil").exists()
