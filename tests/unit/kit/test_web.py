"""The door of every HTTP server."""

import socket

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pdk.kit import web
from pdk.kit.web import Door, Guard, host_of


def client(bind="127.0.0.1", **more):
    app = Starlette(
        routes=[
            Route("/x", lambda _request: PlainTextResponse("in"), methods=["GET", "POST"]),
            Route("/healthz", lambda _r: PlainTextResponse("ok")),
        ]
    )
    return TestClient(
        Guard(app, Door(bind, "the-secret", **{"strangers": True, **more}), lambda _status, reason: {"error": reason}),
        base_url="http://127.0.0.1:80",
    )


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("127.0.0.1:80", "127.0.0.1"),
        ("localhost", "localhost"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("A.example.com:1", "a.example.com"),
    ],
)
def test_host_of(header, host):
    assert host_of(header) == host


def test_loopback_needs_no_token_but_a_name_of_this_machine():
    assert client().get("/x").status_code == 200
    assert client().get("/x", headers={"Host": "evil.example"}).status_code == 421
    assert client(hosts=["a.example"]).get("/x", headers={"Host": "a.example"}).status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
def test_pages_of_other_sites_are_refused(headers):
    assert client().post("/x", json={}, headers=headers).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_what_a_form_can_send_is_refused(kind):
    answer = client().post("/x", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]
    assert client(form_types=True).post("/x", content=b"{}", headers={"Content-Type": kind}).status_code == 200


def test_off_loopback_every_call_needs_the_secret():
    assert client("10.0.0.1").get("/x").status_code == 401
    assert client("10.0.0.1").get("/x", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client("10.0.0.1").get("/x", headers={"Authorization": "Bearer the-secret"}).status_code == 200
    assert client("10.0.0.1").get("/healthz").status_code == 200


def test_connections_do_not_wait_for_acknowledgements():
    with web.listen("127.0.0.1", 0) as sock:
        client = socket.create_connection(sock.getsockname())
        sock.setblocking(True)
        accepted, _ = sock.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_connection_that_nobody_knows_is_a_strangers():
    door = client(strangers=False)  # the test client comes by none
    answer = door.get("/x")
    assert answer.status_code == 401
    assert "another user of this machine" in answer.json()["error"]
    assert door.get("/x", headers={"Authorization": "Bearer the-secret"}).text == "in"
    assert door.get("/healthz").text == "ok"
