"""The charts take the values that the guides give them, where helm and the charts are."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import CHECKOUT

INSTALLED = re.compile(
    r"^(?:VALUES=.*\n)?(?:cat > .*?\nEOF\n)?helm upgrade --install \w+ (?:pachyderm|determined)/.*?[^\\]\n", re.MULTILINE | re.DOTALL
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
    objects, env = {}, {**os.environ, **VALUES, "TMPDIR": str(tmp_path)}
    commands = INSTALLED.findall(text)
    assert len(commands) == 2
    for given in commands:
        command = re.sub(r"upgrade --install (\w+) \w+/(\w+)", rf"template \1 {charts}/\2", re.sub(r" --wait| --timeout \w+", "", given))
        done = subprocess.run(["bash", "-ec", command], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        objects |= {(entry["kind"], entry["metadata"]["name"]): entry for entry in yaml.safe_load_all(done.stdout) if entry}

    # what the guide goes on to speak of
    for name in re.findall(r"get service (pachyderm-\S+|determined-\S+)", text):
        assert objects["Service", name]["spec"]["type"] == "LoadBalancer"
    for name in re.findall(r"annotate serviceaccount (?:\$account )?(determined-\S+)", text):
        assert ("ServiceAccount", name) in objects
    ports = {(name, entry["port"]) for (kind, name), made in objects.items() if kind == "Service" for entry in made["spec"]["ports"]}
    secret = (CHECKOUT / "deploy" / "pipeline-secret.env.example").read_text()
    for host, port in re.findall(r"//([\w-]+)\.determined\.svc\.cluster\.local:(\d+)", secret):
        assert (host, int(port)) in ports
    assert {("pachd", 30650), ("pachd", 30600), ("pachyderm-proxy", 80)} <= ports

    # where things are kept, and by whom they are read
    pachd = objects["Deployment", "pachd"]["spec"]["template"]["spec"]["containers"][0]["env"]
    settings = {entry["name"]: entry.get("value") for entry in pachd}
    kept = {"aws": "s3://pdk-repo-pachyderm?region=us-east-2", "gcp": "gs://pdk-repo-pachyderm"}
    assert settings.get("STORAGE_URL") == kept.get(platform)
    master = yaml.safe_load(objects["Secret", "determined-master-config-determined"]["stringData"]["master.yaml"])
    assert master["checkpoint_storage"]["type"] == {"on-prem": "shared_fs", "aws": "s3", "gcp": "gcs"}[platform]
    assert master["task_container_defaults"]["image"]["cpu"] == "registry.example.com/pdk/experiment:0.1.0"
    assert [pool["pool_name"] for pool in master["resource_pools"]] == ["default", "gpu-pool"]
    for account in ("pachyderm", "pachyderm-worker"):
        identity = objects["ServiceAccount", account]["metadata"].get("annotations") or {}
        assert bool(identity) == (platform != "on-prem")
