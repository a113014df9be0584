"""The guide's own command sequence, as written there but for addresses and image names."""

import contextlib
import json
import shutil
import subprocess
import sys

import pytest

from conftest import CHECKOUT, wait_until
from flow.material import git_repo
from pdk.errors import PdkError
from pdk.installation import SERVERS, Installation
from pdk.local.up import health


def test_the_guides_commands(up, pachctl, kubectl, tmp_path):
    """Its project and names; the folder that is committed is named cats, which the guide warns against."""
    installation = up.installation
    code = up.state.parent / "guide"
    code.mkdir()
    git_repo(code, epochs=12)
    specs = tmp_path / "pipelines"
    shutil.copytree(CHECKOUT / "pipelines/dogs-and-cats", specs)
    training = specs / "training-pipeline.json"
    training.write_text(
        training.read_text().replace("https://github.com/OWNER/pdk.git", str(code)).replace("experiments/dogs-and-cats", "experiment")
    )
    exports = up.run(
        kubectl,
        "get",
        "cm",
        "pdk-config",
        "-o=jsonpath={.data.mldm_url} {.data.kserve_model_namespace} {.data.kserve_ingress_host} {.data.kserve_ingress_port}",
    )
    url, namespace, host, port = exports.split()
    assert url == f"grpc://127.0.0.1:{installation.ports.pachyderm}"

    up.run(pachctl, "connect", url)
    up.run(pachctl, "config", "set", "active-context", url)
    try:
        up.run(pachctl, "create", "project", "pdk-dogs-and-cats")
        up.run(pachctl, "config", "update", "context", "--project", "pdk-dogs-and-cats")
        up.run(pachctl, "create", "repo", "dogs-and-cats-data")
        assert "dogs-and-cats-data" in up.run(pachctl, "list", "repo")
        up.run(pachctl, "create", "pipeline", "-f", "training-pipeline.json", cwd=specs)
        up.run(pachctl, "list", "pipelines")
        up.run(pachctl, "create", "pipeline", "-f", "deployment-pipeline.json", cwd=specs)
        listed = up.run(pachctl, "list", "pipelines")
        assert "dogs-and-cats-model" in listed
        assert "dogs-and-cats-deploy" in listed
        pictures = tmp_path / "cats"
        for kind in ("cats", "dogs"):
            shutil.copytree(CHECKOUT / "sample-data" / "dogs-and-cats" / kind, pictures / kind)
        up.run(pachctl, "put", "file", "dogs-and-cats-data@master:/cats", "-f", "./cats", "-r", cwd=tmp_path)
        commit = json.loads(up.run(pachctl, "inspect", "branch", "dogs-and-cats-data@master", "--raw"))["head"]["id"]
        up.run(pachctl, "wait", "commit", f"dogs-and-cats-deploy@{commit}")
        job = json.loads(up.run(pachctl, "inspect", "job", f"dogs-and-cats-deploy@{commit}", "--raw"))
        assert job["state"] == "JOB_SUCCESS", job["reason"]
        assert "240 used" in up.run(pachctl, "logs", "-j", f"dogs-and-cats-model@{commit}")
        assert "serves at http://dog-cat.models.example.com" in up.run(pachctl, "logs", "-p", "dogs-and-cats-deploy")
        assert "dog-cat" in up.run(kubectl, "-n", namespace, "get", "inferenceservices")
        for kind, label in (("cat", 1), ("dog", 0)):
            words = [
                "curl",
                "-s",
                "-H",
                "Host: dog-cat.models.example.com",
                f"http://{host}:{port}/v1/models/dogs-and-cats:predict",
                "-d",
                f"@./{kind}.json",
            ]
            assert json.loads(up.run(*words, cwd=CHECKOUT / "sample-data" / "requests")) == {"predictions": [label]}
        wait_until(lambda: "True" in up.run(kubectl, "-n", namespace, "get", "isvc", "dog-cat"), 20)
    finally:
        up.run(pachctl, "config", "set", "active-context", "pdk")


@pytest.mark.parametrize("words", [("status",), ("list", "job"), ("env",)])
def test_pdk_without_an_installation_says_so(up, words, tmp_path):
    output = up.fails("pdk", *words, "--state", str(tmp_path / "nothing"), code=3)
    assert "there is no PDK in" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("up", "--port", "abc"), "NAME=PORT"),
        (("up", "--port", "nothing=1"), "unknown port name"),
        (("up", "--only", "nothing"), "known are"),
        (("up", "--allow-git", "/no/such/folder"), "no such folder"),
        (("create", "pipeline", "-f", "/no/such/file"), "cannot be read"),
        (("put", "file", "repo", "-f", "/etc/hostname"), "REPO@BRANCH"),
        (("put", "file", "r@master:/", "-f", "/etc"), "add -r"),
        (("predict", "nobody", "m", "{requests}/cat.json"), "no InferenceService answers"),
        (("inspect", "job", "nothing"), "not found"),
        (("encode", "/no/such/picture.jpg"), "cannot be read"),
    ],
)
def test_wrong_commands_end_with_one_message(up, words, told, tmp_path):
    state = ("--state", str(tmp_path / "s")) if words[0] == "up" else ()
    words = [word.format(requests=CHECKOUT / "sample-data/requests") for word in words]
    output = up.fails("pdk", *words, *state)
    assert told in " ".join(output.split())
    assert "Traceback" not in output


def test_a_second_up_on_the_same_state_is_refused(up):
    assert "running in" in up.fails("pdk", "up", "--state", str(up.state), code=4)


def test_a_taken_port_is_named_with_its_holder(up, tmp_path):
    port = up.installation.ports.determined
    output = up.fails("pdk", "up", "--state", str(tmp_path / "s"), "--port", f"determined={port}", code=2)
    assert f"port {port} (determined) is taken by python" in output


def test_status_and_env(up):
    assert up.run("pdk", "status").count(" ok") == len(SERVERS)
    exported = dict(line.removeprefix("export ").split("=", 1) for line in up.run("pdk", "env").splitlines())
    assert exported["PACH_CONFIG"].startswith(str(up.state))
    assert exported["KUBECONFIG"].startswith(str(up.state))


def test_each_server_starts_alone(up, tmp_path):
    """In a new state folder, on ports of its own."""
    for name in SERVERS:
        state = tmp_path / name
        state.mkdir()
        words = [sys.executable, "-m", "pdk.cli.main", "up", "--only", name, "--state", str(state)]
        with (state / "out").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:

            def answers(state=state, name=name):
                with contextlib.suppress(PdkError):
                    return health(Installation.load(state), name)
                return None

            try:
                answer = wait_until(answers, 30, f"{name} alone")
                # the gateway says that it has no routes when it is alone; the others are well
                assert answer["status"] == ("failing" if name == "gateway" else "ok"), (state / "out").read_text()
            finally:
                process.terminate()
