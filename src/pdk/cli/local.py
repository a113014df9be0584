"""`pdk up`, `env`, `status`, `demo`: the installation on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pdk import cluster
from pdk.cli.commands import Command
from pdk.cli.common import Output, State, installation, kserve, show
from pdk.environment import default_state, kubectl_config
from pdk.errors import UserError
from pdk.installation import SERVERS, ports_from

PORT_HELP = "NAME=PORT for pachyderm, s3, determined, kserve or gateway; refused where it is taken. May be repeated."

URL_HELP = (
    "Place that the server may fetch files from for whoever puts a URL, beside public web addresses: http://HOST:PORT/PATH, or "
    "s3://BUCKET/PATH with the keys of who starts it. May be repeated."
)
EGRESS_HELP = "Place that pipelines may copy output to: file:///FOLDER, s3://BUCKET/PATH or gs://BUCKET/PATH. May be repeated."


def up(
    state: State = None,
    only: Annotated[str | None, typer.Option(help=f"Run one server alone: {', '.join(SERVERS)}.")] = None,
    bind: Annotated[str, typer.Option(help="Address to listen on; any but loopback requires the secret of every client.")] = "127.0.0.1",
    port: Annotated[list[str] | None, typer.Option(help=PORT_HELP)] = None,
    allow_git: Annotated[
        list[Path] | None, typer.Option(help="Folder whose git repositories experiments may come from. May be repeated.")
    ] = None,
    allow_url: Annotated[list[str] | None, typer.Option(help=URL_HELP)] = None,
    allow_egress: Annotated[list[str] | None, typer.Option(help=EGRESS_HELP)] = None,
) -> None:
    """Run the local engines in the foreground; Ctrl-C stops them, their state stays."""
    from pdk.local import up as supervisor  # here and not above: it takes a while to import

    folder = (state or default_state()).absolute()
    pairs = dict(part.partition("=")[::2] for part in port or [])
    if wrong := [f"{name}={number}" for name, number in pairs.items() if not number.isdecimal()]:
        raise UserError(f"--port {wrong[0]}: NAME=PORT is expected")
    ports = ports_from({name: int(number) for name, number in pairs.items()})
    allowed = supervisor.Allowed(allow_git or (), allow_url or (), allow_egress or ())
    if only:
        supervisor.only(folder, only, bind, ports, allowed, fixed_ports=pairs.keys(), say=typer.echo)
    supervisor.up(folder, bind, ports, allowed, fixed_ports=pairs.keys(), say=typer.echo)


def env(
    state: State = None,
    from_cluster: Annotated[bool, typer.Option("--from-cluster", help="Read the config map pdk-config of kubectl's cluster.")] = False,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of that config map.")] = "default",
) -> None:
    """Print variables for pachctl, det, kubectl and curl: eval "$(pdk env)", for a cluster eval "$(pdk env --from-cluster)"."""
    if from_cluster:
        from pdk.engines.kserve import KServe  # here and not above: most commands need none

        config = kubectl_config() if state is None else ""
        engine = KServe() if config else kserve(state)
        found = cluster.variables(engine.config_map(namespace, cluster.CONFIG_MAP))
        if config:
            found = {"KUBECONFIG": config, **found}  # for the other commands, which are the installation's without it
    else:
        from pdk.local import up as supervisor  # here and not above: it takes a while to import

        found = supervisor.environment(installation(state))
    for key, value in found.items():
        typer.echo(f"export {key}={shlex.quote(value)}")


def status(state: State = None, output: Output = "table") -> None:
    """Show each server's health."""
    from pdk.local import up as supervisor  # here and not above: it takes a while to import

    found, rows = installation(state), []
    for name in SERVERS:
        answer = supervisor.health(found, name)
        detail = supervisor.failing_checks(answer) if answer else ""
        rows.append({"server": name, "status": answer["status"] if answer else "down", "detail": detail})
    if output == "table":  # a line each: what fails names files, and what to do
        details = [f"{row['server']}: {row['detail']}" for row in rows if row["detail"]]
        rows = [{"server": row["server"], "status": row["status"]} for row in rows]
    else:
        details = []
    show(rows, output)
    for line in details:
        typer.echo(line)
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


def demo(
    state: Annotated[
        Path | None, typer.Option("--state", help="Folder for the demo's state (default: a new one, removed at the end).")
    ] = None,
    keep: Annotated[bool, typer.Option(envvar="KEEP", help="Keep it running at the end, until Ctrl-C.")] = False,
) -> None:
    """Run the main job from a data commit to predictions, and a second, incremental commit."""
    from pdk.demo import run

    if not run(state, keep=keep):
        raise typer.Exit(1)


COMMANDS = (
    Command("up", up),
    Command("env", env),
    Command("status", status),
    Command("demo", demo),
)
