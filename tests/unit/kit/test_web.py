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


OWN = "http://127.0.0.1:8000"
OTHERS = ["https://evil.example", "null", "evil://localhost", "http://localhost:9999", "http://127.0.0.1", f"{OWN}.evil.example", ""]
NAVIGATION = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("headers", [*({"Origin": origin} for origin in OTHERS), {"Sec-Fetch-Site": "cross-site"}, NAVIGATION])
def test_pages_of_other_sites_are_refused(headers):
    door = client(origins=[OWN])
    assert door.post("/x", json={}, headers=headers).status_code == 403
    assert door.get("/x", headers=headers).status_code == 403
    assert door.post("/x", json={}, headers={"Origin": OWN, "Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client().post("/x", json={}, headers={"Origin": OWN}).status_code == 403  # where there is no page


def test_a_link_on_another_site_leads_to_the_page():
    door = client(origins=[OWN], pages=True)
    assert door.get("/x", headers=NAVIGATION).status_code == 200
    assert door.post("/x", json={}, headers=NAVIGATION).status_code == 403
    for change in ({"Sec-Fetch-Mode": "no-cors"}, {"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Dest": "image"}):
        assert door.get("/x", headers={**NAVIGATION, **change}).status_code == 403


def test_a_request_has_one_host():
    assert client().get("/x", headers=[("Host", "localhost"), ("Host", "evil.example")]).status_code == 400


def test_a_body_says_its_type():
    door, secret = client(strangers=False), {"Authorization": "Bearer the-secret"}
    assert door.post("/x", content=b"{}", headers=secret).status_code == 415
    assert door.post("/x", content=iter([b"{}"]), headers=secret).status_code == 415
    assert door.post("/x", headers=secret).status_code == 200  # none
    assert client(strangers=True).post("/x", content=b"{}").status_code == 200
    assert client(form_types=True).post("/x", content=b"{}").status_code == 200


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
