"""The deploy container's command line and environment, as the original's guide spells them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdk.environment import Addresses
from pdk.errors import UserError
from pdk.settings import share
from pdk.stores import BUCKETS


@dataclass(frozen=True)
class DeployJob:
    """What one run is asked for, and where the engines are."""

    deployment: str
    namespace: str
    project: str
    cloud_host: str | None
    bucket: str | None
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    tolerations: Mapping[str, str]
    node_selector: Mapping[str, str]
    min_replicas: int
    max_replicas: int | None
    request_timeout_s: int | None
    mode: str
    canary: int | None
    keep_previous_s: int
    log_sample: float
    action: str
    service_account: str | None
    kubeconfig: Path | None
    google_credentials: Path | None
    wait: bool
    timeout_s: float
    engines: Addresses
    pfs: Path


def pairs(text: str) -> dict[str, str]:
    """``cpu=2,memory=8Gi``.

    Raises:
        argparse.ArgumentTypeError: a part without '='.
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if not separator or not key or not value:
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form KEY=VALUE")
        found[key] = value
    return found


def count(text: str) -> int:
    """Return a whole number that is not negative.

    Raises:
        argparse.ArgumentTypeError: something else.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def percent(text: str) -> int:
    """Return a whole number from 0 to 100.

    Raises:
        argparse.ArgumentTypeError: something else.
    """
    if count(text) > 100:
        raise argparse.ArgumentTypeError(f"{text} is more than 100 percent")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="deploy.py", description="Archive a trained model and serve it with KServe.")
    made.add_argument("--deployment-name", required=True, help="name of the InferenceService")
    made.add_argument("--cloud-model-host", choices=tuple(BUCKETS), help="where the model store is; without it in a Pachyderm repo")
    made.add_argument("--cloud-model-bucket", help="the model store's bucket")
    made.add_argument("--resource-requests", type=pairs, default={}, metavar="cpu=2,memory=8Gi")
    made.add_argument("--resource-limits", type=pairs, default={}, metavar="cpu=10,memory=8Gi")
    made.add_argument("--tolerations", type=pairs, default={}, metavar="KEY=VALUE,…")
    made.add_argument("--node-selector", type=pairs, default={}, metavar="KEY=VALUE,…", help="labels of the nodes that may serve it")
    made.add_argument("--min-replicas", type=count, default=1, help="at least so many; 0 lets it scale to zero (default %(default)s)")
    made.add_argument("--max-replicas", type=count, help="at most so many, with the load")
    made.add_argument("--request-timeout", type=count, help="seconds that a prediction may take")
    made.add_argument("--deployment-mode", choices=("Standard", "Knative"), default="Standard",
                      help="KServe's way to run it; canaries and zero replicas need Knative (default %(default)s)")  # fmt: skip
    made.add_argument("--canary", type=percent, metavar="PERCENT", help="requests that the new version gets; the rest stays where it is")
    made.add_argument("--keep-previous", type=count, default=0, metavar="SECONDS", help="keep the version before running for so long")
    made.add_argument("--request-log-sample", type=share, default=0.0, metavar="SHARE", help="share of requests whose bodies are logged")
    action = made.add_mutually_exclusive_group()
    action.add_argument("--promote", dest="action", action="store_const", const="promote", help="give all requests to the canary")
    action.add_argument("--rollback", dest="action", action="store_const", const="rollback", help="go back to the version before")
    made.add_argument("--service-account-name", help="service account of the predictor, with the credentials of the model store")
    made.add_argument("--k8s-config-file", type=Path, help="kubeconfig; without it the pod's own service account or $KUBECONFIG")
    made.add_argument("--google-application-credentials", type=Path, help="key file of a Google service account")
    made.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True, help="wait until the new version serves")
    made.add_argument("--timeout", type=float, default=600.0, help="seconds to wait at most (default %(default)g)")
    return made


def parse(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> DeployJob:
    """Arguments and environment of this run.

    Raises:
        UserError: they do not fit together, or a variable is missing.
    """
    options, environ = parser().parse_args(argv), os.environ if environ is None else environ
    if bool(options.cloud_model_host) != bool(options.cloud_model_bucket):
        raise UserError("--cloud-model-host and --cloud-model-bucket belong together; give both or neither")
    if options.max_replicas is not None and options.max_replicas < max(1, options.min_replicas):
        raise UserError(f"--max-replicas {options.max_replicas} is less than --min-replicas {options.min_replicas} (and 1)")
    if options.deployment_mode == "Standard":
        if options.canary is not None:
            raise UserError("--canary needs --deployment-mode Knative: KServe gives a new version all requests in Standard deployments")
        if options.min_replicas == 0:
            raise UserError("--min-replicas 0 needs --deployment-mode Knative: Standard deployments do not scale to zero")
    return DeployJob(
        deployment=options.deployment_name,
        namespace=environ.get("KSERVE_NAMESPACE") or "models",
        project=environ.get("PPS_PROJECT_NAME") or "default",
        cloud_host=options.cloud_model_host,
        bucket=options.cloud_model_bucket,
        requests=options.resource_requests,
        limits=options.resource_limits,
        tolerations=options.tolerations,
        node_selector=options.node_selector,
        min_replicas=options.min_replicas,
        max_replicas=options.max_replicas,
        request_timeout_s=options.request_timeout,
        mode=options.deployment_mode,
        canary=options.canary,
        keep_previous_s=options.keep_previous,
        log_sample=options.request_log_sample,
        action=options.action or "deploy",
        service_account=options.service_account_name,
        kubeconfig=options.k8s_config_file,
        google_credentials=options.google_application_credentials,
        wait=options.wait,
        timeout_s=options.timeout,
        engines=Addresses("", 0) if options.action else Addresses.from_variables(environ),  # those talk to Kubernetes alone
        pfs=Path("/pfs"),
    )
