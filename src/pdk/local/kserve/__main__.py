"""Start the Kubernetes/KServe API alone: ``python -m pdk.local.kserve STATE``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

from pdk.installation import MODELS_NAMESPACE, Installation
from pdk.kit import main, web
from pdk.kit.db import Database
from pdk.local.kserve.rules import objects
from pdk.local.kserve.rules.kinds import CONFIG_MAP, NAMESPACE, RUNTIME, SECRET, SERVICE_ACCOUNT, ApiError
from pdk.local.kserve.runtime import pki
from pdk.local.kserve.runtime.controller import Controller
from pdk.local.kserve.store import table
from pdk.local.kserve.wire.api import Api, status_body

S3_SECRET = "pachyderm-s3"
ACCOUNTS = ("default", "pach-deploy")


def config_map(installation: Installation) -> dict[str, str]:
    """Return the keys of ``pdk-config`` as a cluster's set-up writes them."""
    host, ports = installation.host, installation.ports
    return {
        "region": "local",
        "mldm_namespace": "default",
        "mldm_bucket_name": "local",
        "mldm_host": host,
        "mldm_port": str(ports.pachyderm),
        "mldm_url": f"grpc://{host}:{ports.pachyderm}",
        "mldm_pipeline_secret": "pipeline-secret",
        "mlde_bucket_name": "local",
        "mlde_host": host,
        "mlde_port": str(ports.determined),
        "mlde_url": f"http://{host}:{ports.determined}",
        "kserve_model_bucket_name": "model-store",
        "kserve_model_namespace": MODELS_NAMESPACE,
        "kserve_ingress_host": host,
        "kserve_ingress_port": str(ports.gateway),
        "db_connection_string": f"sqlite://{installation.state}",
        "registry_uri": "pdk",
        "pdk_name": "pdk",
    }


def set_up(db: sqlite3.Connection, installation: Installation) -> None:
    """What a cluster's set-up creates; addresses may differ from those of the last start."""
    secret = installation.secret()
    for name in ("default", MODELS_NAMESPACE):
        with contextlib.suppress(ApiError):
            objects.create(db, NAMESPACE, "", {"metadata": {"name": name}})
    objects.ensure(db, CONFIG_MAP, "default", {"metadata": {"name": "pdk-config"}, "data": config_map(installation)})
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in installation.pipeline_secret().items()}
    objects.ensure(db, SECRET, "default", {"metadata": {"name": "pipeline-secret"}, "type": "Opaque", "data": encoded})
    keys = {name: base64.b64encode(secret.encode()).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    notes = {
        "serving.kserve.io/s3-endpoint": f"{installation.host}:{installation.ports.s3}",
        "serving.kserve.io/s3-usehttps": "0",
        "serving.kserve.io/s3-region": "us-east-1",
    }
    objects.ensure(db, SECRET, MODELS_NAMESPACE, {"metadata": {"name": S3_SECRET, "annotations": notes}, "type": "Opaque", "data": keys})
    for account in ACCOUNTS:
        if table.get(db, SERVICE_ACCOUNT.resource, MODELS_NAMESPACE, account) is None:
            objects.create(db, SERVICE_ACCOUNT, MODELS_NAMESPACE, {"metadata": {"name": account}, "secrets": [{"name": S3_SECRET}]})
    formats = [{"name": name, "autoSelect": True} for name in ("mar", "pytorch")]
    containers = [{"name": "kserve-container", "image": "pdk/serve"}]
    runtime = {
        "metadata": {"name": "pdk-mar"},
        "spec": {"supportedModelFormats": formats, "protocolVersions": ["v1", "v2"], "containers": containers},
    }
    objects.ensure(db, RUNTIME, "", runtime)


async def serve(installation: Installation) -> None:
    """Run until SIGTERM."""
    home, secret = installation.folder("kserve"), installation.secret()
    address = f"{installation.host}:{installation.ports.kserve}"
    authority, certificate, key = pki.ensure(home, installation.host)
    pki.write_kubeconfig(installation.kubeconfig, f"https://{address}", authority, secret)
    with Database(home / "kserve.sqlite", table.MIGRATIONS) as db:
        await db.write(partial(set_up, installation=installation))
        controller = Controller(db, home, installation.domain, installation.state)
        door = web.Door(installation.bind, secret, form_types=True, open_paths=("/healthz", "/livez", "/readyz"), always=True)
        api = Api(db, controller, address)
        checks: web.Checks = {"database": db.health, "models": partial(main.writable, home), "services": controller.steps.health}
        app = web.Guard(Starlette(routes=[web.healthz(checks), *api.routes()]), door, status_body)
        listening = web.serve(app, installation.bind, installation.ports.kserve, (str(certificate), str(key)))
        async with main.running(db.examine(), controller.run(), listening):
            await web.until_signal()


def start(state: Path) -> None:
    """The process's main function."""
    asyncio.run(serve(Installation.load(state)))


if __name__ == "__main__":
    main.run("kserve", start)
