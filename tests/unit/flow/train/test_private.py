"""Private repositories, read over https with a token and over ssh with a key, from real git servers."""

import base64
import os
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flow.material import commit_all
from flow.ssh import ssh_server
from pdk.errors import UserError
from pdk.flow.train import checkout as module
from pdk.flow.train.checkout import Credentials, checkout

TOKEN = "very-secret-token"


@pytest.fixture
def repo(tmp_path):
    """A repository with an experiment of 2 files beside a big one; the commit."""
    folder = tmp_path / "served" / "repo"
    (folder / "deep" / "experiment").mkdir(parents=True)
    (folder / "deep" / "experiment" / "const.yaml").write_text("name: x\n")
    (folder / "other").mkdir()
    (folder / "other" / "big").write_bytes(os.urandom(300_000))
    commit_all(folder)
    (folder / "deep" / "experiment" / "more").write_text("more")
    sha = commit_all(folder)
    subprocess.run(["git", "-C", str(folder), "config", "uploadpack.allowFilter", "true"], check=True)
    subprocess.run(["git", "-C", str(folder), "config", "uploadpack.allowAnySHA1InWant", "true"], check=True)
    return folder, sha


class GitServer(BaseHTTPRequestHandler):
    """git's own http-backend behind a token."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        if server.failures:
            server.failures.pop()
            self.send_error(503)
            return
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server.seen.append(self.headers.get("Authorization", ""))
        if self.headers.get("Authorization", "") != "Basic " + base64.b64encode(f"git:{TOKEN}".encode()).decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(server.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "REMOTE_USER": "git", "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        server.sent += len(content)
        self.send_response(status)
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        self.do_GET()


@pytest.fixture
def serve(repo, tmp_path):
    """Start a git server for the repository; its URL and itself."""
    started = []
    certificate, key = certificates(tmp_path)

    def serve(redirect=""):
        server = ThreadingHTTPServer(("127.0.0.1", 0), GitServer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.root, server.redirect, server.seen, server.failures, server.sent = repo[0].parent, redirect, [], [], 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"https://localhost:{server.server_port}", server

    yield serve
    for server in started:
        server.shutdown()
        server.server_close()


def certificates(folder):
    """A certificate of its own for localhost."""
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate), *names], check=True, capture_output=True)
    return str(certificate), str(key)


def test_a_token_opens_a_repository_and_one_folder_is_read(repo, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES_S", (0.01, 0.01))
    url, server = serve()
    credentials = Credentials(token=TOKEN, user="git", certificates=str(tmp_path / "certificate.pem"))
    server.failures = [1]  # once away
    for number, ref in enumerate(("main", repo[1])):
        made = checkout(f"{url}/repo", ref, "deep/experiment", tmp_path / f"s{number}", (), credentials)
        assert made.sha == repo[1]
        assert (made.folder / "const.yaml").read_text() == "name: x\n"
        assert not (tmp_path / f"s{number}" / "repo" / "other").exists()
        log = subprocess.run(["git", "-C", str(made.folder), "log", "--oneline"], capture_output=True, text=True, check=True).stdout
        assert len(log.splitlines()) == 1
    assert server.sent < 100_000  # not the big file
    assert TOKEN not in (tmp_path / "s0" / "repo" / ".git" / "config").read_text()
    for wrong in (Credentials(certificates=credentials.certificates), Credentials("no", "git", certificates=credentials.certificates)):
        with pytest.raises(UserError, match=r"fetch of https://localhost.* failed") as refused:
            checkout(f"{url}/repo", "main", "", tmp_path / f"w{wrong.token}", (), wrong)
        assert TOKEN not in str(refused.value)


def test_a_token_is_not_given_to_another_host(serve, tmp_path):
    other, receiver = serve()
    url, _ = serve(redirect=other.replace("localhost", "127.0.0.1"))
    credentials = Credentials(token=TOKEN, user="git", certificates=str(tmp_path / "certificate.pem"))
    with pytest.raises(UserError):
        checkout(f"{url}/repo", "main", "", tmp_path / "s", (), credentials)
    assert not any(receiver.seen)


@pytest.fixture
def ssh():
    """An SSH server for this user; its port, and the folder of the keys."""
    with ssh_server("127.0.0.1") as server:
        yield server


def test_a_key_opens_a_repository(ssh, repo, tmp_path):
    port, home = ssh
    url = f"ssh://{os.environ.get('USER', 'root')}@127.0.0.1:{port}{repo[0]}"
    key, host = (home / "client").read_text(), (home / "host.pub").read_text()
    known = f"[127.0.0.1]:{port} {host}"
    for number, credentials in enumerate((Credentials(key=key), Credentials(key=key.rstrip(), known_hosts=known))):
        assert checkout(url, "main", "deep/experiment", tmp_path / f"s{number}", (), credentials).sha == repo[1]
    stranger = f"[127.0.0.1]:{port} {(home / 'stranger.pub').read_text()}"
    with pytest.raises(UserError, match="Host key verification failed"):
        checkout(url, "main", "", tmp_path / "a", (), Credentials(key=key, known_hosts=stranger))
    with pytest.raises(UserError, match="Permission denied"):
        checkout(url, "main", "", tmp_path / "b", (), Credentials(key=(home / "stranger").read_text()))


def test_the_key_may_be_a_file_and_never_shows(tmp_path):
    (tmp_path / "key").write_text("PRIVATE")
    made = Credentials.from_variables({"GIT_SSH_KEY_FILE": str(tmp_path / "key"), "GIT_TOKEN": TOKEN})
    assert (made.key, made.user) == ("PRIVATE", "git")
    with pytest.raises(UserError, match="cannot be read"):
        Credentials.from_variables({"GIT_SSH_KEY_FILE": str(tmp_path / "absent")})
