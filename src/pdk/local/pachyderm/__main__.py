"""Start the Pachyderm server alone: ``python -m pdk.local.pachyderm STATE``."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

from pdk.errors import Conflict
from pdk.installation import Installation, is_loopback
from pdk.kit import logs, main, web
from pdk.kit.db import Database
from pdk.kit.grpc_server import Answers
from pdk.kit.http2 import Server
from pdk.kit.reach import Reach
from pdk.kit.spec import Bind
from pdk.local.pachyderm.rules import repos, secrets
from pdk.local.pachyderm.rules.model import CommitRef
from pdk.local.pachyderm.runtime.executor import Surroundings
from pdk.local.pachyderm.runtime.inventory import Inventory
from pdk.local.pachyderm.runtime.layout import in_memory
from pdk.local.pachyderm.runtime.worker import Worker
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.schema import MIGRATIONS
from pdk.local.pachyderm.wire import admin, rpc, s3, schema
from pdk.local.pachyderm.wire.pfs import Pfs
from pdk.local.pachyderm.wire.pfs_files import Files
from pdk.local.pachyderm.wire.pps import Pps
from pdk.local.pachyderm.wire.pps_logs import Logs
from pdk.local.pachyderm.wire.pps_secrets import Secrets

PIPELINE_SECRET = "pipeline-secret"
KUBE_FOLDER = "/run/pdk/kube"  # inside jobs


def set_up(db: sqlite3.Connection, installation: Installation) -> None:
    """What a cluster's set-up creates: the default project and the secret that pipelines use."""
    with contextlib.suppress(Conflict):
        repos.create_project(db, repos.DEFAULT_PROJECT, "", update=False)
    # the addresses may differ from those of the last start
    secrets.put(db, PIPELINE_SECRET, "Opaque", installation.pipeline_secret())


def job_environment(installation: Installation) -> dict[str, str]:
    """Return the variables that tell user code where the engines are."""
    host, ports = installation.host, installation.ports
    return {
        "PACHD_PEER_SERVICE_HOST": host,
        "PACHD_PEER_SERVICE_PORT": str(ports.pachyderm),
        "PACHD_LB_SERVICE_HOST": host,
        "PACHD_LB_SERVICE_PORT": str(ports.pachyderm),
        "PDK_S3_ENDPOINT": f"http://{host}:{ports.s3}",
        "PDK_GIT_ROOTS": ":".join(installation.git_roots),
        "KUBECONFIG": f"{KUBE_FOLDER}/config",
    }


def job_binds(installation: Installation) -> tuple[Bind, ...]:
    """Return what jobs see of this machine beside their data: the kubeconfig, and git repositories that may be read."""
    roots = (Bind(Path(root), root, read_only=True) for root in installation.git_roots)
    return Bind(installation.kubeconfig.parent, KUBE_FOLDER, read_only=True), *roots


@contextlib.asynccontextmanager
async def s3_buckets(db: Database, blobs: BlobStore, secret: str, names: Mapping[str, CommitRef]) -> AsyncIterator[Mapping[str, str]]:
    """Serve commits as buckets on a port of their own; gives the variables that S3 clients read."""
    gateway = s3.Gateway(db, blobs, secret, required=False, buckets=names)
    door = web.Door("127.0.0.1", secret, form_types=True, signed=True)
    listener = web.listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with main.running(web.serve_on(listener, web.Guard(Starlette(routes=gateway.routes()), door, s3.refusal_body))):
        yield {
            "S3_ENDPOINT": address,
            "AWS_ENDPOINT_URL_S3": address,
            "AWS_ACCESS_KEY_ID": "default",
            "AWS_SECRET_ACCESS_KEY": "default",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


async def serve(installation: Installation) -> None:
    """Run until SIGTERM."""
    home, secret = installation.folder("pachyderm"), installation.secret()
    api = schema.load(installation.state / "cache")
    identity = main.identity(home)
    with (
        Database(home / "pachyderm.sqlite", MIGRATIONS) as db,
        contextlib.closing(BlobStore(home / "store", db.reader)) as blobs,
        in_memory(home) as memory,
    ):
        await db.write(partial(set_up, installation=installation))
        around = Surroundings(
            job_environment(installation),
            job_binds(installation),
            (installation.state, memory) if memory else (installation.state,),
            memory,
            partial(secrets.data_of, db.reader),
            logs.Redactor(secret),
            partial(s3_buckets, db, blobs, secret),
            Reach(installation.urls, installation.egress),
        )
        worker = Worker(db, blobs, home / "jobs", around)
        pfs, pps = Pfs(api, db, worker.end), Pps(api, db, worker)
        cluster = rpc.Cluster(api, identity, rpc.project_exists(db.reader))
        services = {
            "pfs_v2.API": (pfs, Files(api, db, blobs, around.reach)),
            "pps_v2.API": (pps, Logs(api, db, worker), Secrets(api, db)),
        } | dict.fromkeys(("admin_v2.API", "versionpb_v2.API", "auth_v2.API", "transaction_v2.API"), (cluster,))
        answers = Answers(rpc.methods(api, services), rpc.admission(installation.bind, secret), rpc.explain)
        server = Server(answers, installation.bind, installation.ports.pachyderm)
        door = web.Door(installation.bind, secret, form_types=True, signed=True)
        gateway = s3.Gateway(db, blobs, secret, required=not is_loopback(installation.bind))
        caretaker = admin.Admin(db, blobs, secret, own=is_loopback(installation.bind))
        inventory = Inventory(db, blobs)
        checks: web.Checks = {
            "database": db.health,
            "store": partial(main.writable, home),
            "contents": inventory.health,
            "jobs": worker.health,
        }
        routes = [
            web.healthz(checks),
            *caretaker.routes(),
            *gateway.routes(),
        ]
        app = web.Guard(Starlette(routes=routes), door, s3.refusal_body) if is_loopback(installation.bind) else Starlette(routes=routes)
        listening = web.serve(app, installation.bind, installation.ports.s3)
        async with main.running(db.examine(), inventory.run(), worker.run(), caretaker.run(), server.run(), listening):
            await web.until_signal()


def start(state: Path) -> None:
    """The process's main function."""
    asyncio.run(serve(Installation.load(state)))


if __name__ == "__main__":
    main.run("pachyderm", start)
