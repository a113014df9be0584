"""Where the server goes for its callers: to the public web, and where its operator allowed."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pdk.errors import PdkError, UserError
from pdk.kit.reach import FETCHED, SENT, NotAllowed, Reach, check_allowance, covers, is_public
from pdk.local.pachyderm.runtime import urls
from pdk.local.pachyderm.runtime.uploads import Upload
from unit.local.test_versions import Store


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("10.1.2.3", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
        ("fe80::1%eth0", False), ("fd00:ec2::254", False), ("ff02::1", False), ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False), ("64:ff9b::808:808", True), ("2002:7f00:1::", False), ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),
    ],
)  # fmt: skip
def test_public_addresses(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("allowed", "url", "covered"),
    [
        ("http://h", "http://h/x", True), ("http://h", "http://h:80/x", True), ("http://h:81", "http://h/x", False),
        ("http://h", "https://h/x", False), ("http://h/a", "http://h/ab", False), ("http://h/a", "http://H/a/b", True),
        ("http://h/a", "http://h/a/../b", False), ("http://h/a", "http://h/a/%2e%2e/b", False), ("http://h", "http://h@other/x", False),
        ("http://h", "http://h.other/x", False), ("s3://b/p", "s3://b/p/q", True), ("s3://b/p", "s3://b/pq", False),
        ("file:///a", "file:///a/b", True), ("file:///a", "file:///ab", False), ("file:///a", "file://host/a/b", False),
    ],
)  # fmt: skip
def test_what_an_allowance_covers(allowed, url, covered):
    assert covers(allowed, url) is covered


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://h", "http://", "http://h/?q", "http://u:p@h", "http://h:port", "file:///tmp"])
def test_allowances_of_another_form(url):
    with pytest.raises(UserError):
        check_allowance("--allow-url", url, FETCHED)


def test_folders_must_be_there(tmp_path):
    assert check_allowance("--allow-egress", f"file://{tmp_path}", SENT) == f"file://{tmp_path}"
    with pytest.raises(UserError, match="there is no such folder"):
        check_allowance("--allow-egress", f"file://{tmp_path}/absent", SENT)


class Web(BaseHTTPRequestHandler):
    """Answers with its path, or leads to what stands in the query."""

    def do_GET(self):
        path, _, onward = self.path.partition("?")
        self.send_response(302 if onward else 200)
        if onward:
            self.send_header("Location", onward)
        self.send_header("Content-Length", str(len(path)))
        self.end_headers()
        self.wfile.write(path.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Web) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [server.server_port for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


def fetched(reach, url):
    """What is put by a URL."""
    store = Store()

    async def fetch():
        with Upload(store.db, store.blobs) as upload:
            await urls.fetch(upload, reach, "/x", url, recursive=False)
            return sum(change.size for change in upload.changes) + upload.incoming._size

    try:
        return asyncio.run(fetch())
    finally:
        store.close()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::ffff:127.0.0.1]", "[::1]", "\uff11\uff12\uff17.0.0.1"],
)
def test_no_spelling_leads_to_this_machine(web, host):
    with pytest.raises(PdkError, match=r"not an address of the internet|Cannot connect|not a canonical"):
        fetched(Reach(), f"http://{host}:{web[0]}/secret")


def test_what_was_named_is_fetched_and_nothing_beside_it(web):
    one, other = web
    reach = Reach((f"http://127.0.0.1:{one}",))
    assert fetched(reach, f"http://127.0.0.1:{one}/four") == 5
    assert fetched(reach, f"http://127.0.0.1:{one}/x?/five5") == 6
    for onward in (f"http://127.0.0.1:{other}/", f"//localhost:{one}/", "file:///etc/passwd", "s3://bucket/key"):
        with pytest.raises(PdkError, match=r"not an address of the internet|neither http nor https"):
            fetched(reach, f"http://127.0.0.1:{one}/x?{onward}")
    with pytest.raises(PdkError, match="more than 10 times"):
        fetched(reach, f"http://127.0.0.1:{one}/x?/x?/x?/x?/x?/x?/x?/x?/x?/x?/x?/x")
    with pytest.raises(PdkError, match="more than 4 bytes"):
        fetched(Reach((f"http://127.0.0.1:{one}",), limit=4), f"http://127.0.0.1:{one}/four")


def test_the_keys_of_who_started_it_are_used_for_named_buckets_only(monkeypatch, web):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{web[0]}")
    with pytest.raises(NotAllowed, match="--allow-url s3://bucket"):
        fetched(Reach(("s3://other", "s3://bucket/public")), "s3://bucket/private")
    assert fetched(Reach(("s3://bucket/public",)), "s3://bucket/public/x") == len("/bucket/public/x")
