"""From the deploy container's command line to the InferenceService's spec."""

import pytest

from pdk.errors import UserError
from pdk.flow.deploy.arguments import parse
from pdk.flow.deploy.rollout import annotations_for, spec_for

ENV = {"PACHD_PEER_SERVICE_HOST": "h", "PACHD_PEER_SERVICE_PORT": "1"}


def spec(*words):
    return spec_for(parse(["--deployment-name", "pets", *words], ENV), "s3://bucket/key")["predictor"]


def test_the_least():
    assert spec() == {"minReplicas": 1, "model": {"modelFormat": {"name": "mar"}, "storageUri": "s3://bucket/key"}}


def test_everything():
    made = spec(
        "--resource-requests", "cpu=2,memory=8Gi", "--resource-limits", "nvidia.com/gpu=1", "--tolerations", "gpu=yes", "--node-selector",
        "pool=gpu,zone=a", "--deployment-mode", "Knative", "--min-replicas", "0",
        "--max-replicas", "4", "--request-timeout", "30", "--service-account-name", "reader",
    )  # fmt: skip
    assert made["model"]["resources"] == {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"nvidia.com/gpu": "1"}}
    assert made["tolerations"] == [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}]
    assert made["nodeSelector"] == {"pool": "gpu", "zone": "a"}
    assert (made["minReplicas"], made["maxReplicas"], made["timeout"], made["serviceAccountName"]) == (0, 4, 30, "reader")


@pytest.mark.parametrize("words", [("--min-replicas", "3", "--max-replicas", "2"), ("--max-replicas", "0")])
def test_replicas_that_do_not_fit(words):
    with pytest.raises(UserError, match="max-replicas"):
        spec(*words)


@pytest.mark.parametrize("words", [("--min-replicas", "-1"), ("--request-timeout", "soon"), ("--node-selector", "pool")])
def test_what_argparse_refuses(words, capsys):
    with pytest.raises(SystemExit):
        spec(*words)
    assert words[1] in capsys.readouterr().err


def test_shares_need_knative():
    with pytest.raises(UserError, match="--deployment-mode Knative"):
        spec("--canary", "20")
    job = parse(["--deployment-name", "pets", "--deployment-mode", "Knative", "--canary", "20", "--keep-previous", "60"], ENV)
    assert job.canary == 20
    notes = annotations_for(job, "d", "v")
    assert (notes["serving.kserve.io/deploymentMode"], notes["pdk/keep-previous-s"]) == ("Knative", "60")


def test_promoting_needs_no_pachyderm():
    assert parse(["--deployment-name", "pets", "--promote"], {}).action == "promote"
