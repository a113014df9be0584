"""What flows are made of: git repositories with the experiments, and the specs of pipelines that run them."""

import json
import shutil
import subprocess
from pathlib import Path

from conftest import CHECKOUT

EXPERIMENT = CHECKOUT / "experiments" / "dogs-and-cats"
PHOTOS = CHECKOUT.parent / "shared" / "data" / "dogs-and-cats"


def git_repo(folder: Path, *, epochs: int = 2) -> str:
    """A git repository in `folder` with the dogs-and-cats experiment, trained for `epochs`, below experiment/; returns the commit."""
    shutil.copytree(EXPERIMENT, folder / "experiment", ignore=shutil.ignore_patterns("__pycache__"))
    const = folder / "experiment" / "const.yaml"
    const.write_text(const.read_text().replace("epochs: 40", f"epochs: {epochs}").replace("epochs: 4\n", "epochs: 1\n"))
    return commit_all(folder)


def commit_all(folder: Path) -> str:
    """Commit everything in `folder`."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *identity, "-C", str(folder), *words], check=True)
    return subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def examples(folder: Path) -> str:
    """A git repository in `folder` with the experiments of all examples; returns the commit."""
    shutil.copytree(CHECKOUT / "experiments", folder / "experiments", ignore=shutil.ignore_patterns("__pycache__"))
    return commit_all(folder)


def template_words(values):
    """The arguments of pipelines/pipelines.jsonnet, as pachctl and pdk take them."""
    return [word for key, value in values.items() for word in ("--arg", f"{key}={value}")]


def train_spec(name, repo, project, url, ref, *, model, extra="--incremental", sub_dir="experiment", config="const.yaml"):
    """A train pipeline like that of pipelines/dogs-and-cats."""
    spec = json.loads((CHECKOUT / "pipelines/dogs-and-cats/training-pipeline.json").read_text())
    spec["pipeline"]["name"] = name
    spec["input"]["pfs"]["repo"] = repo
    spec["transform"]["stdin"] = [
        (
            f'python train.py --git-url "$GIT_URL" --git-ref "$GIT_REF" --sub-dir {sub_dir} --config {config} --repo {repo} '
            f"--model {model} --project {project} {extra}"
        )
    ]
    spec["transform"]["env"] = {"GIT_URL": str(url), "GIT_REF": ref}
    return spec


def deploy_spec(name, source, deployment):
    """A deploy pipeline like that of pipelines/dogs-and-cats."""
    spec = json.loads((CHECKOUT / "pipelines/dogs-and-cats/deployment-pipeline.json").read_text())
    spec["pipeline"]["name"] = name
    spec["input"]["pfs"]["repo"] = source
    spec["transform"]["stdin"] = [f"python deploy.py --deployment-name {deployment} --timeout 120"]
    return spec
