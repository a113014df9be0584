"""The charts take the values that the guides give them, where helm and the charts are."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import CHECKOUT

GIVEN = re.compile(r"^PACHYDERM=\(.*?\)\nCHECKPOINTS=.*?\n", re.MULTILINE | re.DOTALL)
INSTALLED = re.compile(
    r"^(?:cat > \S+ <<EOF\n(?:(?!EOF).*\n)*EOF\n)?helm upgrade --install (?:pachyderm|determined) (?:.*\\\n)*.*\n", re.MULTILINE
)
VALUES = {"NAME": "pdk", "REGISTRY_URI": "registry.example.com", "ACCOUNT": "123456789012", "AZ_REGION": "us-east-2", "PROJECT": "project"}


@pytest.fixture(scope="module")
def charts():
    """The folder with the charts of Pachyderm and Determined; skips where there is none."""
    named = os.environ.get("PDK_TEST_CHARTS")
    if not named or not shutil.which("helm"):
        pytest.skip("no helm, or PDK_TEST_CHARTS names no folder with the charts pachyderm and determined")
    return Path(named)


@pytest.mark.parametrize("platform", ["on-prem", "aws", "gcp"])
def test_the_charts_take_a_guides_values(charts, platform, tmp_path):
    text = (CHECKOUT / "deploy" / platform / "README.md").read_text()
    objects, env = {}, {**os.environ, **VALUES, "OVERLAY": str(tmp_path), "DET_PASS": "Secret12"}
    commands = INSTALLED.findall(text)
    assert len(commands) == 2
    for written in commands:
        command = re.sub(r"helm upgrade --install (\w+) (\w+) --repo \S+", rf"helm template \1 {charts}/\2", written)
        command = GIVEN.search(text)[0] + re.sub(r" --wait| --timeout \w+", "", command)
        done = subprocess.run(["bash", "-ec", command], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        objects |= {(entry["kind"], entry["metadata"]["name"]): entry for entry in yaml.safe_load_all(done.stdout) if entry}

    # what the guide goes on to speak of
    for name in re.findall(r"\$\(address \w+ (pachyderm-[\w-]+|determined-[\w-]+)\)", text):
        assert objects["Service", name]["spec"]["type"] == "LoadBalancer"
    for name in re.findall(r"annotate serviceaccount (?:\$account )?(determined-\S+)", text):
        assert ("ServiceAccount", name) in objects
    ports = {(name, entry["port"]) for (kind, name), made in objects.items() if kind == "Service" for entry in made["spec"]["ports"]}
    overlay = (CHECKOUT / "deploy" / platform / "kustomization.yaml").read_text()
    host, port = re.search(r"//([\w-]+)\.determined\.svc\.cluster\.local:(\d+)", overlay).groups()
    assert (host, int(port)) in ports
    assert {("pachd", 30650), ("pachd", 30600), ("pachyderm-proxy", 80)} <= ports

    # where things are kept, and by whom they are read; nobody enters by a password that the chart has for everybody
    assert "mockPassword" not in json.dumps([entry for entry in objects.values() if entry["kind"] == "Secret"])
    pachd = objects["Deployment", "pachd"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert "IDP_CONFIG" in {entry["name"] for entry in pachd}  # without it pachd does not come up with authentication
    settings = {entry["name"]: entry.get("value") for entry in pachd}
    kept = {"aws": "s3://pdk-repo-pachyderm?region=us-east-2", "gcp": "gs://pdk-repo-pachyderm"}
    assert settings.get("STORAGE_URL") == kept.get(platform)
    master = yaml.safe_load(objects["Secret", "determined-master-config-determined"]["stringData"]["master.yaml"])
    assert master["checkpoint_storage"]["type"] == {"on-prem": "shared_fs", "aws": "s3", "gcp": "gcs"}[platform]
    assert master["task_container_defaults"]["image"]["cpu"] == "registry.example.com/pdk/experiment:0.1.0"
    assert master["resource_manager"]["default_compute_resource_pool"] == "gpu-pool"
    assert [pool["pool_name"] for pool in master["resource_pools"]] == ["default", "gpu-pool"]
    for account in ("pachyderm", "pachyderm-worker"):
        identity = objects["ServiceAccount", account]["metadata"].get("annotations") or {}
        assert bool(identity) == (platform != "on-prem")
