"""Another user of this machine: every server lets the owner in without a credential, and that user with one only."""

import contextlib
import os
import pwd
import socket
import subprocess
from pathlib import Path

import boto3
import botocore
import pytest
import requests
from botocore.config import Config
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from conftest import wait_until
from pdk.kit import peers

RELAY = """
import socket, sys, threading
def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    for ends in ((client, server), (server, client)):
        threading.Thread(target=pump, args=ends, daemon=True).start()
"""
PYTHON = "/usr/bin/python3"
needs_another_user = pytest.mark.skipif(
    os.getuid() != 0 or not Path(PYTHON).exists(), reason="needs root, to become an ordinary user, and a system python"
)


@contextlib.contextmanager
def relayed(port):
    """A port whose connections go on to another one as the user nobody's: the servers see that user, whatever client is used."""
    words = [PYTHON, "-I", "-c", RELAY, str(port)]
    running = subprocess.Popen(words, user="nobody", group="nogroup", extra_groups=[], stdout=subprocess.PIPE, text=True, env={}, cwd="/")
    try:
        yield int(running.stdout.readline())
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


@needs_another_user
def test_pachyderm(up):
    ports, secret = up.installation.ports, up.installation.secret()
    assert list(Client(host="127.0.0.1", port=ports.pachyderm).pfs.list_project())
    with relayed(ports.pachyderm) as port:
        with pytest.raises(Exception, match="another user of this machine"):
            list(Client(host="127.0.0.1", port=port).pfs.list_project())
        with pytest.raises(Exception, match="no authentication token"):
            list(Client(host="127.0.0.1", port=port, auth_token="wrong").pfs.list_project())
        assert list(Client(host="127.0.0.1", port=port, auth_token=secret).pfs.list_project())


def s3(port, secret=None):
    keys = {"aws_access_key_id": secret, "aws_secret_access_key": secret} if secret else {}
    signature = {} if secret else {"signature_version": botocore.UNSIGNED}
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}, **signature)
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", config=config, **keys)


@needs_another_user
def test_s3_and_the_stores_own_calls(up, name):
    ports, secret = up.installation.ports, up.installation.secret()
    client = Client(host="127.0.0.1", port=ports.pachyderm)
    repo = pfs.Repo(name=name, type="user", project=pfs.Project(name="default"))
    client.pfs.create_repo(repo=repo)
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        commit.put_file_from_bytes(path="/a", data=b"content")
    place = {"Bucket": f"master.{name}", "Key": "a"}
    assert s3(ports.s3).get_object(**place)["Body"].read() == b"content"
    with relayed(ports.s3) as port:
        for keys in (None, "wrong"):
            with pytest.raises(botocore.exceptions.ClientError):
                s3(port, keys).get_object(**place)
        assert s3(port, secret).get_object(**place)["Body"].read() == b"content"
        base, signed = f"http://127.0.0.1:{port}", {"Authorization": "AWS4-HMAC-SHA256 Credential=x"}
        assert requests.get(f"{base}/master.{name}/a", timeout=10).status_code == 401
        assert requests.get(f"{base}/master.{name}/a", headers=signed, timeout=10).status_code == 403
        for headers in ({}, signed, {"Authorization": "Bearer wrong"}):
            assert requests.post(f"{base}/-/gc", headers=headers, timeout=10).status_code == 401
            assert requests.post(f"{base}/-/put/default/{name}/master", b"", headers=headers, timeout=10).status_code == 401
        assert requests.post(f"{base}/-/gc", headers={"Authorization": f"Bearer {secret}"}, timeout=60).status_code == 200
        assert requests.get(f"{base}/healthz", timeout=10).status_code == 200


@needs_another_user
@pytest.mark.parametrize("server", ["web", "gateway", "kserve", "determined"])
def test_http(up, server):
    ports, secret = up.installation.ports, up.installation.secret()
    scheme = "https" if server == "kserve" else "http"
    trust = {"verify": str(up.state / "kserve" / "ca.pem")} if server == "kserve" else {}
    paths = {"web": "/repos.json", "gateway": "/v1/models/m:predict", "kserve": "/api/v1/namespaces", "determined": "/api/v1/experiments"}
    with relayed(getattr(ports, server)) as port:
        address = f"{scheme}://127.0.0.1:{port}{paths[server]}"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Forwarded-For": "127.0.0.1"}):
            assert requests.get(address, headers=headers, timeout=10, **trust).status_code == 401
        if server == "determined":
            body = {"username": "determined", "password": secret}
            login = f"http://127.0.0.1:{port}/api/v1/auth/login"
            assert requests.post(login, json={**body, "password": ""}, timeout=10).status_code == 401
            blank = requests.post(f"http://127.0.0.1:{ports.determined}/api/v1/auth/login", json={**body, "password": ""}, timeout=10)
            assert blank.status_code == 200  # the owner's own, as on a fresh engine
            token = requests.post(login, json=body, timeout=10).json()["token"]
        else:
            token = secret
        found = requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=10, **trust)
        assert found.status_code == (404 if server == "gateway" else 200)


@contextlib.contextmanager
def connected(host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
        with client, server:
            yield client, server.getpeername()[:2], server.getsockname()[:2]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("look", [peers._asked, peers._listed, peers.owner])
def test_the_kernel_is_asked(host, look):
    with connected(host) as (client, one, other):
        assert look(one, other) == os.getuid()
        assert peers.trusted(one, other)
        assert look((one[0], 1), other) is None
        assert not peers.trusted((one[0], 1), other)
        client.close()  # nobody holds it any more, and the kernel calls that root's
        wait_until(lambda: look(one, other) is None, 5)
        assert not peers.trusted(one, other)
    assert not peers.trusted(None, other)


@needs_another_user
def test_the_kernel_names_the_other_user():
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = stack.enter_context(relayed(listener.getsockname()[1]))
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        server = stack.enter_context(listener.accept()[0])
        ends = server.getpeername(), server.getsockname()
        assert peers._asked(*ends) == peers._listed(*ends) == pwd.getpwnam("nobody").pw_uid
        assert not peers.trusted(*ends)
