"""`pdk doctor`: is everything there that the flow needs, and what to do where it is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pdk.cli.commands import Command
from pdk.cli.common import Output, State, determined, installation, kserve, master, pachyderm
from pdk.environment import named_ingress
from pdk.errors import NotFound, UserError
from pdk.installation import MODELS_NAMESPACE

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    state: State = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the InferenceServices.")] = MODELS_NAMESPACE,
    account: Annotated[str, typer.Option("--service-account-name", help="Service account of the predictors.")] = "pach-deploy",
    cloud: Annotated[str | None, typer.Option("--cloud-model-host", help="The cloud of the bucket that models are put into.")] = None,
    bucket: Annotated[str | None, typer.Option("--cloud-model-bucket", help="That bucket.")] = None,
    output: Output = "table",
) -> None:
    """Check addresses, versions, credentials, permissions, serving and disk, locally or on the cluster that the variables name."""
    from pdk.catalog.doctor import Places, examine
    from pdk.stores import bucket_of

    if bool(cloud) != bool(bucket):
        raise UserError("--cloud-model-host and --cloud-model-bucket belong together; give both or neither")
    store = bucket_of(cloud, bucket) if cloud and bucket else None
    try:
        found = installation(state)
        folder, ingress = str(found.state), named_ingress() or (found.host, found.ports.gateway)
    except NotFound:
        folder, ingress = "", named_ingress() or ("127.0.0.1", 80)
    places = Places(
        lambda: pachyderm(state), lambda: determined(state), lambda: kserve(state), master(state)[0], ingress, namespace, folder, account,
        store,
    )  # fmt: skip
    findings = []
    for finding in examine(places):
        findings.append(finding)
        if output != "json":
            typer.echo(f"{typer.style(finding.state.ljust(8), fg=COLOURS[finding.state])} {finding.check}: {finding.found}")
            if finding.matters:
                typer.echo(f"{'':9}why it matters: {finding.matters}\n{'':9}what to do: {finding.todo}")
    if output == "json":
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)


COMMANDS = (Command("doctor", doctor),)
