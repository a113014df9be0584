"""Which pipelines train and deploy, and what feeds what, as specs say."""

import pytest

from pdk.catalog.causes import differing
from pdk.catalog.flows import Flows, role_of
from pdk.engines.records import Pipeline


@pytest.mark.parametrize(
    ("transform", "role"),
    [
        ({"cmd": ["/bin/sh"], "stdin": ['python train.py --git-url "$GIT_URL" --model m']}, "train"),
        ({"cmd": ["python", "/app/deploy.py", "--deployment-name", "x"]}, "deploy"),
        ({"cmd": ["sh", "-c", "python3 'train.py'"]}, "train"),
        ({"cmd": ["python", "retrain.py"]}, ""),
        ({}, ""),
    ],
)
def test_roles(transform, role):
    assert role_of({"transform": transform}) == role


def pipelines(**inputs):
    programs = {"train": ["python", "train.py"], "deploy": ["python", "deploy.py"]}
    for name, source in inputs.items():
        spec = {"input": source, "transform": {"cmd": programs.get(name.rstrip("0123456789"), ["sh"])}}
        yield Pipeline("p", name, 1, "running", "success", "", spec)


def pfs(*repos):
    parts = [{"pfs": {"repo": repo, "glob": "/*"}} for repo in repos]
    return parts[0] if len(parts) == 1 else {"cross": parts}


def test_what_feeds_what():
    flows = Flows.of(pipelines(clean=pfs("raw"), join=pfs("clean", "labels"), train=pfs("join"), deploy=pfs("train"), other=pfs("raw")))
    assert flows.upstream("deploy") == ["raw", "clean", "labels", "join", "train", "deploy"]
    assert flows.sources("train") == ["raw", "labels"]
    assert flows.deploys("train") == ["deploy"]
    assert flows.trains() == ["train"]


def test_a_pipeline_that_reads_itself_ends():
    flows = Flows.of(pipelines(a=pfs("b"), b=pfs("a")))
    assert set(flows.upstream("a")) == {"a", "b"}


def config(rate, branch, searcher, **more):
    return {
        "hyperparameters": {"lr": rate, "deep": {"n": 1}}, "labels": [branch], "data": {"pachyderm": {"branch": branch}},
        "searcher": {"name": searcher}, **more,
    }  # fmt: skip


def test_differences_of_configs():
    before, now = config(0.1, "1", "single"), config(0.2, "2", "random", max_restarts=0)
    assert differing(before, now) == {"hyperparameters.lr": (0.1, 0.2), "searcher.name": ("single", "random"), "max_restarts": (None, 0)}
