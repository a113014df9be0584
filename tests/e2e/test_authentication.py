"""Pachyderm with its authentication on, entered as the on-prem guide has it: the blocks marked ``<!-- testbed: auth -->``."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.cluster import ANYBODY, FEW, apply_overlay, marked, run, write_env


@pytest.fixture
def authenticated(cluster, master, tmp_path, monkeypatch):
    """A shell's environment in which the guide's blocks were run; authentication is off again afterwards."""
    shutil.copy(os.environ["PACH_CONFIG"], tmp_path / "pachctl.json")
    monkeypatch.setenv("PACH_CONFIG", str(tmp_path / "pachctl.json"))
    root = secrets.token_hex(16)
    secret = {"name": "pachyderm-root", "namespace": "pachyderm"}
    made = [
        {"kind": "Namespace", "metadata": {"name": "pachyderm"}},
        {"kind": "Secret", "metadata": secret, "stringData": {"root-token": root}},
    ]
    run("kubectl", "apply", "-f", "-", stdin="\n---\n".join(json.dumps({"apiVersion": "v1", **entry}) for entry in made))
    run("pachctl", "auth", "activate", "--supply-root-token", stdin=f"{root}\n")
    overlay = cluster / "testbed"
    try:
        blocks = marked("testbed: auth")
        assert len(blocks) == 2
        script = "\n".join(["set -e", *blocks, 'printf "%s" "$PAC_TOKEN" > $TOKEN_FILE'])
        told = {"OVERLAY": str(overlay), "TOKEN_FILE": str(tmp_path / "token")}
        done = subprocess.run(["bash", "-c", script], env={**os.environ, **told}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        apply_overlay(cluster, master, pac_token=(tmp_path / "token").read_text())
        yield
    finally:
        run("pachctl", "auth", "deactivate", stdin="y\n")
        write_env(overlay / "pachyderm-s3.env", ANYBODY)
        apply_overlay(cluster, master)
        run("kubectl", "delete", "namespace", "pachyderm", "--wait=false")


@pytest.mark.timeout(900)
def test_the_flow_of_people_who_say_who_they_are(authenticated, quick, master):
    quick.create()
    commit = quick.put(FEW, "/data1")
    quick.both(commit)
    quick.serves(commit)  # the predictor's robot may read the archive
    may = run("pachctl", "auth", "get", "cluster")
    assert re.search(r"robot:pdk-models: \[repoReader\]", may), may
    words = [sys.executable, "-m", "pdk.cli.main", "doctor"]
    names = {"DET_MASTER": master.url, "DET_USER": master.user, "DET_PASS": master.password, "PATH": os.environ["PATH"]}
    said = subprocess.run(words, env={**os.environ, **names}, capture_output=True, text=True, check=False).stdout
    assert re.search(r"ok +Pachyderm permissions", said), said

    stranger = {**os.environ, "PACH_CONFIG": str(Path(os.environ["PACH_CONFIG"]).with_name("nobody.json"))}
    said = subprocess.run(words, env={**stranger, **names}, capture_output=True, text=True, check=False).stdout
    assert re.search(r"failed +Pachyderm permissions", said), said
