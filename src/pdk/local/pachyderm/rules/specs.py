"""What the server needs of a pipeline spec, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pdk.errors import NotSupported, UserError
from pdk.local.pachyderm.rules import inputs, repos, schedules
from pdk.local.pachyderm.rules.model import PIPELINE_LIMIT, Refused, check_name

DEFAULTS = {"output_branch": "master", "datum_tries": "3", "reprocess_spec": "until_success"}  # the engine's, as JSON
DEFAULT_IMAGE = "ubuntu:20.04"  # what the engine runs where a spec names none
NOT_OFFERED = {
    "spout": "spouts",
    "service": "service pipelines",
    "s3_out": "S3 outputs",
    "datum_batching": "datum batching",
}
EVERY_JOB = "every_job"


@dataclass(frozen=True)
class SecretUse:
    """A secret's key as an environment variable, or the whole secret as files below a path."""

    name: str
    key: str = ""
    env_var: str = ""
    mount_path: str = ""


@dataclass(frozen=True)
class Spec:
    """A pipeline spec; the whole of it is kept beside. Times are seconds."""

    project: str
    name: str
    input: inputs.Input | None
    image: str
    cmd: tuple[str, ...]
    stdin: tuple[str, ...]
    err_cmd: tuple[str, ...]
    err_stdin: tuple[str, ...]
    env: Mapping[str, str]
    secrets: tuple[SecretUse, ...]
    accept: frozenset[int]
    working_dir: str
    user: str
    output_branch: str
    parallelism: int
    datum_tries: int
    datum_timeout_s: float | None
    job_timeout_s: float | None
    every_job: bool
    egress: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def leaves(self) -> tuple[inputs.Leaf, ...]:
        """Return the branches that it reads."""
        return tuple(inputs.leaves(self.input))


def with_defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the effective spec: what the engine assumes where a spec says nothing is filled in."""
    transform = {"image": DEFAULT_IMAGE, **{key: value for key, value in (raw.get("transform") or {}).items() if value != ""}}
    return {**DEFAULTS, **raw, "transform": transform}


def parse(raw: Mapping[str, Any]) -> Spec:
    """Read a spec (field names as in the proto).

    Raises:
        Refused: something in it is wrong; in the engine's words where it has some.
        NotSupported: it asks for what is not offered.
    """
    pipeline, transform = raw.get("pipeline") or {}, raw.get("transform") or {}
    name = pipeline.get("name", "")
    project = (pipeline.get("project") or {}).get("name") or repos.DEFAULT_PROJECT
    _check_pipeline_name(name, project)
    for key, what in NOT_OFFERED.items():
        if raw.get(key):
            raise NotSupported(f"{what} are not supported locally (field {key}); run this pipeline on a cluster")
    if raw.get("tf_job"):
        raise Refused("embedding TFJobs in pipelines is not supported yet")
    reprocess = raw.get("reprocess_spec") or "until_success"
    if reprocess not in ("until_success", EVERY_JOB):
        raise UserError("invalid effective spec: invalid pipeline spec: ReprocessSpec must be one of 'until_success' or 'every_job'")
    if not raw.get("input"):
        raise Refused(f"pipeline {name!r}: no input set; a pipeline needs one")
    if not transform.get("cmd"):
        raise Refused(f"pipeline {name!r}: nothing to run: no transform.cmd; say which program to run")
    return Spec(
        project=project,
        name=name,
        input=_input(raw["input"], name, project),
        image=transform.get("image") or DEFAULT_IMAGE,
        cmd=tuple(transform["cmd"]),
        stdin=tuple(transform.get("stdin") or ()),
        err_cmd=tuple(transform.get("err_cmd") or ()),
        err_stdin=tuple(transform.get("err_stdin") or ()),
        env=dict(transform.get("env") or {}),
        secrets=tuple(_secret(secret) for secret in transform.get("secrets") or ()),
        accept=frozenset({0, *(int(code) for code in transform.get("accept_return_code") or ())}),
        working_dir=transform.get("working_dir") or "",
        user=transform.get("user") or "",
        output_branch=raw.get("output_branch") or "master",
        parallelism=int((raw.get("parallelism_spec") or {}).get("constant") or 1),
        datum_tries=max(1, int(raw.get("datum_tries") or 3)),
        datum_timeout_s=schedules.seconds(raw.get("datum_timeout") or ""),
        job_timeout_s=schedules.seconds(raw.get("job_timeout") or ""),
        every_job=reprocess == EVERY_JOB,
        egress=_egress(raw.get("egress") or {}),
        raw=raw,
    )


def _check_pipeline_name(name: str, project: str) -> None:
    if not name:
        raise Refused("invalid pipeline spec: request.Pipeline.Name cannot be empty")
    check_name("invalid pipeline name: ", name)
    if len(name) > PIPELINE_LIMIT:
        raise Refused(f'pipeline name "{name}" is {len(name) - PIPELINE_LIMIT} characters longer than the {PIPELINE_LIMIT} max')
    kubernetes = f"{project}-{name}-v99".replace("_", "-").lower()
    if len(kubernetes) > 63:
        raise Refused(f'Kubernetes name "{kubernetes}" is {len(kubernetes) - 63} characters longer than the 63 max')
    if not name[0].isalnum():
        raise Refused("pipeline names must start with an alphanumeric character")


def _input(raw: Mapping[str, Any], name: str, project: str) -> inputs.Input:
    try:
        return inputs.parse(raw, name, project)
    except (Refused, NotSupported):
        raise
    except UserError as error:  # the engine gives these no code
        raise Refused(str(error)) from error


def _secret(raw: Mapping[str, Any]) -> SecretUse:
    use = SecretUse(raw.get("name", ""), raw.get("key", ""), raw.get("env_var", ""), raw.get("mount_path", ""))
    if use.env_var and not use.key:
        raise Refused(f"secret {use.name} has env_var set but is missing key")
    return use


def _egress(raw: Mapping[str, Any]) -> str:
    """Return where outputs are copied to; empty for nowhere."""
    if raw.get("sql_database"):
        raise NotSupported("egress to a database is not supported locally (field egress.sql_database); run this pipeline on a cluster")
    url = str(raw.get("URL") or raw.get("url") or (raw.get("object_storage") or {}).get("url") or "")
    if url and not url.startswith(("s3://", "gs://", "gcs://", "file://")):
        raise Refused(f"egress: unrecognized object store: {url!r}; write s3://BUCKET/PATH, gs://BUCKET/PATH or file:///PATH")
    return url
