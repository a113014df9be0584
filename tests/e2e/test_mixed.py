"""Engines of this machine and of a cluster together, by addresses alone: `pdk up` trains and archives, the cluster's KServe serves.

The other way round, pachd of the cluster with experiments of this machine, is what test_cluster.py runs.
"""

import json
import os
import re
import subprocess

import pytest

from conftest import CHECKOUT, wait_until
from e2e.cluster import NODE, STORES, run
from flow.material import commit_all
from flow.test_examples import Example
from pdk.demo import HOST, PREDICT
from pdk.engines.kserve import KServe


@pytest.mark.timeout(600)
def test_local_pachyderm_with_the_clusters_kserve(cluster, own_up):
    run("kubectl", "delete", "isvc", "dog-cat", "-n", "models", "--ignore-not-found", "--wait")
    folder = own_up.state.parent / "code"
    folder.mkdir()
    example = Example(own_up, "dogs-and-cats", folder)
    const = next(folder.rglob("dogs-and-cats/const.yaml"))
    const.write_text(const.read_text().replace("epochs: 40", "epochs: 6"))
    commit_all(folder)
    example.engine.create_secret("model-store", {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")})
    store = {**STORES["aws"], "storeEndpoint": f"http://{NODE}:9000"}
    example.create(**store, deployFlags=f"--k8s-config-file {os.environ['KUBECONFIG']}")
    pictures = {
        f"/data1/{kind}/{file.name}": file
        for kind in ("cats", "dogs")
        for file in (CHECKOUT / "sample-data/dogs-and-cats" / kind).iterdir()
    }
    commit = example.engine.put_files(example.name, "dogs-and-cats-data", "master", pictures)
    for step in ("model", "deploy"):
        assert example.wait(f"dogs-and-cats-{step}", commit, 300).state == "SUCCESS", example.log(f"dogs-and-cats-{step}", commit)
    assert "dog-cat" in run("kubectl", "-n", "models", "get", "isvc")  # the cluster's
    assert KServe(own_up.installation.kubeconfig).services() == []
    body = CHECKOUT / "sample-data" / "requests" / "cat.json"

    def answer():
        words = ["curl", "-s", "-i", "-H", f"Host: {HOST}", f"{os.environ['PDK_TEST_INGRESS']}{PREDICT}", "-d", f"@{body}"]
        said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        return said if re.search(rf"(?i)pdk-model-version: {commit}", said) else None

    said = wait_until(answer, 60, "the cluster's answer")
    assert "predictions" in json.loads(said.split("\n")[-1])
    run("kubectl", "delete", "isvc", "dog-cat", "-n", "models")
