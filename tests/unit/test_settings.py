"""Which engines and logins the environment names."""

import json

import pytest

from pdk.environment import Addresses, kubectl_config, named_pachyderm

ADDRESS = {"PACHD_ADDRESS": "grpc://pachd.example.com:80"}


def test_the_login_of_pachctl_counts(tmp_path):
    config = {"v2": {"active_context": "here", "contexts": {"here": {"session_token": "mine"}, "there": {"session_token": "other"}}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    environ = {**ADDRESS, "PACH_CONFIG": str(tmp_path / "config.json")}
    assert named_pachyderm(environ) == ("pachd.example.com", 80, "mine")
    assert named_pachyderm({**environ, "PACH_TOKEN": "given"}) == ("pachd.example.com", 80, "given")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"v2": null}', '{"v2": {"active_context": "x", "contexts": {}}}', '{"v2": {"contexts": []}}']
)
def test_a_config_without_a_login_gives_none(tmp_path, content):
    (tmp_path / ".pachyderm").mkdir()
    (tmp_path / ".pachyderm" / "config.json").write_text(content)
    assert named_pachyderm({**ADDRESS, "HOME": str(tmp_path)}) == ("pachd.example.com", 80, "")
    assert named_pachyderm({**ADDRESS, "HOME": str(tmp_path / "nobody")}) == ("pachd.example.com", 80, "")


def test_a_step_uses_the_secrets_token_before_its_pipelines_own():
    environ = {"PACHD_LB_SERVICE_HOST": "pachd", "PACHD_LB_SERVICE_PORT": "30650", "PACH_TOKEN": "pipeline's", "PAC_TOKEN": "robot's"}
    assert Addresses.from_variables(environ).pachd_token == "robot's"
    assert Addresses.from_variables({**environ, "PAC_TOKEN": ""}).pachd_token == "pipeline's"


def test_kubectls_config_is_its_own_default_where_nothing_else_is_named(tmp_path):
    assert kubectl_config({"HOME": str(tmp_path)}) == ""
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    assert kubectl_config({"HOME": str(tmp_path)}) == str(tmp_path / ".kube" / "config")
    assert kubectl_config({"HOME": str(tmp_path), "KUBECONFIG": "/one:/two"}) == "/one:/two"
