"""What every model store does alike: put, find again, and say what is wrong. A new store is one more name in `STORES`."""

import json
import os
import re
import shutil
import subprocess
import urllib.request
import uuid
from pathlib import Path

import pytest

from conftest import program, wait_until
from pdk.engines.pachyderm import Pachyderm
from pdk.errors import AuthError, PdkError, UserError
from pdk.flow.deploy.arguments import parser
from pdk.kit.web import free_ports
from pdk.stores import BUCKETS, archive_of, bucket_of, folder_of
from pdk.stores.pachyderm import PachydermStore

DIGEST = "d" * 64
ACCOUNT, KEY = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)  # Azurite's own, public


@pytest.fixture(scope="module")
def engine(up):
    return Pachyderm("127.0.0.1", up.installation.ports.pachyderm)


@pytest.fixture
def pachyderm(engine, name):
    engine.create_project(name)
    return PachydermStore(engine, name)


@pytest.fixture
def aws(up, engine, name, monkeypatch):
    """A bucket of the local S3 gateway."""
    engine.create_project(name)
    engine.create_repo(name, "models")
    engine.put_files(name, "models", "master", {"/readme": Path(__file__)})
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, up.installation.secret())
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{up.installation.ports.s3}")
    return bucket_of("aws", f"master.models.{name}")


@pytest.fixture(scope="module")
def fake_gcs(tmp_path_factory):
    server = program("fake-gcs-server", Path.home() / ".cache/pdk-testbed/bin/fake-gcs-server")
    [port] = free_ports("127.0.0.1", 1)
    words = [server, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-public-host", f"127.0.0.1:{port}"]
    with (tmp_path_factory.mktemp("gcs") / "log").open("w") as log:
        running = subprocess.Popen(words, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(f"{address}/storage/v1/b?project=x"), 30, "fake-gcs-server")
    yield address
    running.kill()
    running.wait()


@pytest.fixture
def gcp(fake_gcs, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    bucket = f"b{uuid.uuid4().hex}"
    request = urllib.request.Request(f"{fake_gcs}/storage/v1/b?project=test", json.dumps({"name": bucket}).encode())
    urllib.request.urlopen(request, timeout=10).close()
    return bucket_of("gcp", bucket)


@pytest.fixture(scope="module")
def azurite(tmp_path_factory):
    """Azure's own emulator of its store."""
    found = os.environ.get("PDK_TEST_AZURITE") or shutil.which("azurite-blob")
    if not found:
        pytest.skip("azurite-blob is not on PATH, and PDK_TEST_AZURITE names none; npm install -g azurite")
    [port] = free_ports("127.0.0.1", 1)
    folder = tmp_path_factory.mktemp("azurite")
    words = [found, "--silent", "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(words, stdout=log, stderr=log)
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/{ACCOUNT}?comp=list"), 60, "azurite")
    yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    running.kill()
    running.wait()


@pytest.fixture
def azure(azurite, monkeypatch):
    from azure.storage.blob import ContainerClient

    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azurite};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    container = f"c{uuid.uuid4().hex}"
    ContainerClient.from_connection_string(connection, container).create_container()
    return bucket_of("azure", container)


def answers(address):
    try:
        urllib.request.urlopen(address, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


STORES = ["pachyderm", *BUCKETS]


@pytest.fixture(params=STORES)
def store(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def files(tmp_path):
    """An archive of 9 MB and what lies beside it."""
    contents = {archive_of("m"): b"\0archive\xff" * 1_000_000, "config/config.properties": b"x=y\n", "config/empty": b""}
    for path, content in contents.items():
        (tmp_path / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / path).write_bytes(content)
    return {path: tmp_path / "files" / path for path in contents}


def test_what_is_put_is_found_by_its_digest(store, files):
    store.check()
    assert store.find(model="m", digest=DIGEST) is None
    uri = store.put(model="m", files=files, digest=DIGEST)
    assert uri.endswith(f"/{folder_of('m', DIGEST)}")
    assert store.find(model="m", digest=DIGEST) == uri
    assert store.put(model="m", files=files, digest=DIGEST) is not None  # a step that is run again
    assert store.find(model="m", digest=DIGEST) is not None
    assert store.find(model="m", digest="e" * 64) is None
    assert store.find(model="other", digest=DIGEST) is None


def read(store, key, tmp_path):
    """An object of a bucket, by the cloud's own library."""
    bucket = store.bucket
    if hasattr(bucket, "container"):
        with bucket._client() as client:
            return client.download_blob(key).readall()
    if hasattr(bucket, "_bucket"):
        with bucket._bucket() as client:
            return client.blob(key).download_as_bytes()
    with bucket._client() as client:
        client.download_file(bucket.bucket, key, str(tmp_path / "got"))
        return (tmp_path / "got").read_bytes()


@pytest.mark.parametrize("name_", BUCKETS)
def test_a_bucket_holds_the_bytes_and_the_archive_comes_last(name_, request, files, tmp_path):
    store = request.getfixturevalue(name_)
    half = {path: source for path, source in files.items() if path != archive_of("m")}
    store.put(model="m", files=half, digest=DIGEST)  # as far as a step came that was killed
    assert store.find(model="m", digest=DIGEST) is None
    missing = {**files, archive_of("m"): tmp_path / "absent"}
    with pytest.raises(FileNotFoundError):
        store.put(model="m", files=missing, digest=DIGEST)
    assert store.find(model="m", digest=DIGEST) is None
    store.put(model="m", files=files, digest=DIGEST)
    for path, source in files.items():
        assert read(store, f"{folder_of('m', DIGEST)}/{path}", tmp_path) == source.read_bytes()


@pytest.mark.parametrize("name_", BUCKETS)
def test_a_bucket_that_is_missing_is_named(name_, request):
    request.getfixturevalue(name_)
    with pytest.raises(UserError, match="nobody-has-this"):
        bucket_of(name_, "nobody-has-this").check()


def test_an_unknown_cloud_is_none_of_the_known_ones():
    with pytest.raises(UserError, match=re.escape(f"no model host 'aliyun'; known are {', '.join(BUCKETS)}")):
        bucket_of("aliyun", "b")


def test_the_command_line_offers_them_all(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    assert f"{{{','.join(BUCKETS)}}}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variables", "kind", "said"),
    [
        ({}, UserError, "set AZURE_STORAGE_ACCOUNT"),
        ({"AZURE_STORAGE_CONNECTION_STRING": "nonsense"}, UserError, "cannot be used"),
        ({"AZURE_STORAGE_ACCOUNT": "x", "AZURE_STORAGE_KEY": "not base64!"}, PdkError, "cannot be used"),
    ],
)
def test_azure_without_what_it_needs(variables, kind, said, monkeypatch):
    for key in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(kind, match=said):
        bucket_of("azure", "models").check()


def test_azure_refuses_a_wrong_key(azurite, monkeypatch):
    wrong = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey=d3Jvbmc=;BlobEndpoint={azurite};"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
    with pytest.raises(AuthError, match="AZURE_STORAGE_KEY"):
        bucket_of("azure", "models").check()
