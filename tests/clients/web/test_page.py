"""The read-only page, as a browser and as a program sees it."""

import json

import pytest
import requests
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps


@pytest.fixture(scope="module")
def made(up):
    """A project with a repo, a pipeline that fails, and its job's ID."""
    client = Client(host="127.0.0.1", port=up.installation.ports.pachyderm)
    project = pfs.Project(name="page")
    client.pfs.create_project(project=project)
    repo = pfs.Repo(name="data", type="user", project=project)
    client.pfs.create_repo(repo=repo)
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        commit.put_file_from_bytes(path="/notes/<b>.txt", data=b"<script>alert(1)</script>\n")
        commit.put_file_from_bytes(path="/picture", data=b"\0\1\2")
    spec = {
        "pipeline": {"name": "fails", "project": {"name": "page"}},
        "transform": {"image": "pdk/train:0.1", "cmd": ["/bin/sh"], "stdin": ["echo it went wrong; exit 3"]},
        "input": {"pfs": {"repo": "data", "glob": "/"}},
        "datum_tries": 1,
    }
    client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec))
    job = next(iter(client.pps.list_job(pipeline=pps.Pipeline(name="fails", project=project))))
    client.pps.inspect_job(job=job.job, wait=True)
    return commit.id, job.job.id


@pytest.fixture
def get(up):
    base = f"http://127.0.0.1:{up.installation.ports.web}"
    return lambda path, **more: requests.get(base + path, timeout=30, **more)


@pytest.mark.parametrize("path", ["/", "/runs", "/repos", "/pipelines", "/jobs", "/experiments", "/models", "/services"])
def test_every_page_has_a_twin(get, made, path):
    page = get(path)
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    twin = get("/index.json" if path == "/" else f"{path}.json")
    assert twin.status_code == 200
    assert twin.json()["title"] in page.text
    assert not [section for section in twin.json()["sections"] if "error" in section]


def test_what_is_red_is_shown_with_its_log(get, made):
    _, id_ = made
    assert 'class="bad">failure' in get("/pipelines").text
    page = get(f"/jobs/page/fails/{id_}")
    assert "it went wrong" in page.text
    twin = get(f"/jobs/page/fails/{id_}.json").json()
    assert twin["sections"][0]["rows"][0]["state"] == {"text": "failure", "bad": True}
    assert "exited with code 3" in twin["sections"][0]["rows"][0]["reason"]
    assert "it went wrong" in twin["text"]


def test_files_are_browsed_and_nothing_of_them_is_run(get, made):
    commit, _ = made
    assert "notes" in get(f"/files/page/data/{commit}/").text
    listed = get(f"/files/page/data/{commit}/notes").text
    assert "&lt;b&gt;.txt" in listed
    shown = get(f"/files/page/data/{commit}/notes/%3Cb%3E.txt").text
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert "(not text)" in get(f"/files/page/data/{commit}/picture").text
    assert get("/repos/page/data").status_code == 200
    assert get("/repos/page/absent").status_code == 404
    assert get("/repos/page/absent.json").json()["error"]


def test_only_reading_and_only_from_here(up, get):
    assert get("/", headers={"Host": "evil.example.com"}).status_code == 421
    assert get("/", headers={"Origin": "http://localhost:9999"}).status_code == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert get("/", headers=link).status_code == 200  # somebody followed one
    assert get("/", headers={**link, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}).status_code == 403
    assert requests.post(f"http://127.0.0.1:{up.installation.ports.web}/", json={}, timeout=10).status_code == 405
