"""The train container's command line and environment, as the original's guide spells them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pdk.environment import Addresses, needed
from pdk.flow.train.checkout import Credentials
from pdk.words import label_of


@dataclass(frozen=True)
class TrainJob:
    """What one run is asked for, and where the engines are."""

    git_url: str
    git_ref: str
    sub_dir: str
    config: str
    repo: str
    model: str
    project: str
    incremental: bool
    git_roots: tuple[Path, ...]
    credentials: Credentials = field(repr=False)
    job_id: str
    pipeline: str
    commit: str
    engines: Addresses
    out: Path

    @property
    def key(self) -> str:
        """Names this run for good: the experiment carries it as a label and is found by it again."""
        return label_of(self.project, self.pipeline, self.job_id)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="train.py", description="Train a model on a data commit and register it.")
    made.add_argument("--git-url", required=True, help="repository of the experiment's code (https, ssh, or a path that is allowed)")
    made.add_argument("--git-ref", required=True, help="branch, tag or commit")
    made.add_argument("--sub-dir", default="", help="folder of the experiment inside the repository")
    made.add_argument("--config", required=True, help="Determined experiment configuration, inside that folder")
    made.add_argument("--repo", required=True, help="data repo")
    made.add_argument("--model", required=True, help="name in the model registry")
    made.add_argument("--project", default="default", help="Pachyderm project of the data repo")
    made.add_argument(
        "--incremental", action=argparse.BooleanOptionalAction, default=False, help="go on from the last version on what changed"
    )
    return made


def parse(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> TrainJob:
    """Arguments and environment of this run.

    Raises:
        UserError: a variable is missing.
    """
    options, environ = parser().parse_args(argv), os.environ if environ is None else environ
    needed(environ, "DET_MASTER")
    needed(environ, "DET_USER")
    return TrainJob(
        git_url=options.git_url,
        git_ref=options.git_ref,
        sub_dir=options.sub_dir,
        config=options.config,
        repo=options.repo,
        model=options.model,
        project=options.project,
        incremental=options.incremental,
        git_roots=tuple(Path(root) for root in environ.get("PDK_GIT_ROOTS", "").split(":") if root),
        credentials=Credentials.from_variables(environ),
        job_id=needed(environ, "PACH_JOB_ID"),
        pipeline=needed(environ, "PPS_PIPELINE_NAME"),
        commit=environ.get(f"{options.repo}_COMMIT") or needed(environ, "PACH_JOB_ID"),
        engines=Addresses.from_variables(environ),
        out=Path("/pfs/out"),
    )
