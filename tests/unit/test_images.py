"""The containers' images: their locks, and what `make push` asks the build program and the registry for."""

import os
import re
import subprocess
import sys

import pytest

from conftest import CHECKOUT

NAMES = ("train", "deploy", "serve", "experiment")
RECORD = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
case "$*" in
  *get-login-password*) echo SECRET;;
  *describe-repositories*) {answer};;
  *login*) read -r password; [ "$password" = SECRET ];;
esac
"""
LACKING = "echo 'An error occurred (RepositoryNotFoundException)' >&2; exit 254"
REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/mine"


def locked(path):
    """Package → version and hashes of a lock file."""
    blocks = re.split(r"\n(?=[a-z0-9])", path.read_text().strip())
    return {block.split()[0]: set(re.findall(r"sha256:([0-9a-f]{64})", block)) for block in blocks}


@pytest.mark.parametrize("name", NAMES)
def test_an_image_holds_what_is_locked_for_all(name):
    folder = CHECKOUT / "containers" / name
    every = locked(CHECKOUT / "requirements" / "base.txt")
    mine = locked(folder / "requirements.txt")
    assert mine
    assert all(hashes for hashes in mine.values())
    assert {package: every.get(package) for package in mine} == mine
    text = (folder / "Dockerfile").read_text()
    assert text.count("ARG BASE_IMAGE=python:3.11-slim\n") == 1
    assert "pip install" not in re.sub(r"pip install[^\n]*(--require-hashes|/wheel/|--index-url)", "", text)
    assert name == "experiment" or "\nUSER 1000:1000\n" in text


def test_images_with_torch_share_their_first_layers():
    starts = {
        (CHECKOUT / "containers" / name / "Dockerfile").read_text().partition("ARG BASE_IMAGE")[2].partition("fi\n")[0]
        for name in NAMES[1:]
    }
    assert len(starts) == 1


@pytest.fixture
def images(tmp_path):
    """Runs containers/images.py with programs that write down how they were called; returns it and what they wrote."""

    def call(*words, answer=LACKING):
        log, place = tmp_path / "log", tmp_path / "bin"
        place.mkdir(exist_ok=True)
        for program in ("docker", "aws"):
            (place / program).write_text(RECORD.format(log=log, answer=answer))
            (place / program).chmod(0o755)
        log.write_text("")
        env = {**os.environ, "PATH": f"{place}:/usr/bin:/bin"}
        done = subprocess.run([sys.executable, str(CHECKOUT / "containers/images.py"), *words], env=env, capture_output=True, text=True,
                              check=False)  # fmt: skip
        return done, log.read_text().splitlines()

    return call


def test_a_push_to_ecr_makes_the_repository(images):
    done, calls = images("push", "train", "--registry", REGISTRY, "--tag", "1.2", "--platform", "linux/arm64")
    assert done.returncode == 0, done.stderr
    name = f"{REGISTRY}/pdk/train:1.2"
    assert calls == [
        f"docker build --platform linux/arm64 -t {name} -f containers/train/Dockerfile .",
        "aws ecr get-login-password --region eu-central-1",
        f"docker login --username AWS --password-stdin {REGISTRY.partition('/')[0]}",
        "aws ecr --region eu-central-1 --output json describe-repositories --repository-names mine/pdk/train",
        "aws ecr --region eu-central-1 --output json create-repository --repository-name mine/pdk/train --image-tag-mutability IMMUTABLE",
        f"docker push {name}",
    ]
    assert "SECRET" not in "".join(calls) + done.stdout
    _, calls = images("push", "train", "--registry", REGISTRY, answer="echo '{\"repositories\": [{}]}'")
    assert not any("create-repository" in line for line in calls)


def test_other_registries_and_wrong_ways(images):
    done, calls = images("push", "train", "serve", "--registry", "registry.example.com:5000/me")
    assert done.returncode == 0
    assert [line.split()[-1] for line in calls if " push " in line] == [
        f"registry.example.com:5000/me/pdk/{name}:0.1.0" for name in ("train", "serve")
    ]
    assert not any(line.startswith("aws") for line in calls)
    for words, said in ((("push",), "needs a registry"), (("build", "nothing"), "there is no image 'nothing'"),
                        (("build", "train", "--builder", "no-such-builder"), "is not installed")):  # fmt: skip
        done, _ = images(*words)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    done, _ = images("push", "train", "--registry", REGISTRY, answer="echo 'no credentials' >&2; exit 1")
    assert "no credentials" in done.stderr
