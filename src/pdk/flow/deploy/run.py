"""One run of the deploy step. What must survive it lives in the engines and is looked up before it is made."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pdk.documents import Unreadable, read_yaml, write_yaml
from pdk.engines.kserve import KServe
from pdk.engines.pachyderm import Pachyderm
from pdk.engines.patience import patiently
from pdk.errors import PdkError, UserError
from pdk.flow.deploy.archive import digest_of, pack
from pdk.flow.deploy.arguments import DeployJob
from pdk.flow.deploy.rollout import annotations_for, spec_for
from pdk.provenance import Provenance
from pdk.stores import Store, archive_of, bucket_of
from pdk.stores.pachyderm import PachydermStore
from pdk.timing import clock
from pdk.words import DEPLOY_INFO, MODEL_INFO, MODEL_VERSION

STORE_S = 180.0  # how long a model store may be away; what is put there once more does no harm: it is named by its content


def say(text: str) -> None:
    """To the job's log."""
    print(text, flush=True)


def read_info(pfs: Path) -> tuple[dict[str, Any], Path]:
    """Return the train step's ``model-info.yaml`` and the folder that it lies in.

    Raises:
        UserError: there is none, or it is broken.
    """
    found = sorted(path for path in pfs.glob(f"*/{MODEL_INFO}") if path.parent.name != "out")
    if len(found) != 1:
        raise UserError(f"one model-info.yaml is expected in the job's input, found {len(found)}; is the train pipeline the input?")
    try:
        info = read_yaml(found[0].read_bytes())
    except Unreadable as error:
        raise UserError(f"{found[0]} cannot be read: {error}") from error
    if not isinstance(info, dict) or not info.get("name") or not info.get("version"):
        raise UserError(f"{found[0]} does not name a model and its version")
    return info, found[0].parent


def checkpoint_of(job: DeployJob, info: dict[str, Any], folder: Path, scratch: Path) -> Path:
    """Return the checkpoint: from the job's input, or from Determined where it is absent there.

    Raises:
        UserError: it is in neither place.
    """
    if (folder / "checkpoint").is_dir():
        return folder / "checkpoint"
    if not job.engines.master:
        raise UserError("the job's input holds no checkpoint, and DET_MASTER is not set to get it from Determined")
    from pdk.engines.determined import Determined

    determined = Determined(job.engines.master, job.engines.user, job.engines.password)
    known = next((entry for entry in determined.versions(info["name"]) if entry.name == info["version"]), None)
    if known is None:
        raise UserError(f"model {info['name']!r} has no version named {info['version']!r} in Determined")
    determined.download(known.checkpoint, scratch / "checkpoint")
    return scratch / "checkpoint"


def store_for(job: DeployJob, pachyderm: Pachyderm) -> Store:
    """Return the model store that the command line names."""
    if job.cloud_host:
        return bucket_of(job.cloud_host, job.bucket or "", job.google_credentials)
    return PachydermStore(pachyderm, job.project)


def run(job: DeployJob) -> None:
    """Archive the model, put it into the store, roll the InferenceService, wait for it.

    Raises:
        PdkError: with what the user needs to know.
    """
    info, folder = read_info(job.pfs)
    model, version = str(info["name"]), str(info["version"])
    kserve = KServe(job.kubeconfig)
    with tempfile.TemporaryDirectory(prefix="pdk-deploy-") as place:
        scratch = Path(place)
        checkpoint = checkpoint_of(job, info, folder, scratch)
        provenance = Provenance.from_json(info.get("provenance"))
        digest = digest_of(model, checkpoint, provenance)
        store = store_for(job, Pachyderm(job.engines.pachd_host, job.engines.pachd_port, job.engines.pachd_token))
        uri = patiently("model store", lambda: store.find(model=model, digest=digest), STORE_S)
        if uri is not None:
            say("archive: it was made before, and is served again")
        else:
            files = pack(model, version, checkpoint, provenance, scratch)
            say(f"archive: {model}.mar, {files[archive_of(model)].stat().st_size:,} bytes, of {digest[:16]}")
            uri = patiently("model store", lambda: store.put(model=model, files=files, digest=digest), STORE_S)
    archived = datetime.now(UTC)
    say(f"model store: {uri}")
    kserve.roll(job.namespace, job.deployment, spec_for(job, uri), annotations_for(job, digest, version), job.canary)
    share = "" if job.canary is None else f", for {job.canary} % of the requests"
    say(f"InferenceService {job.namespace}/{job.deployment} was set to version {version}{share}")
    url = ""
    if job.wait:
        url = kserve.wait(job.namespace, job.deployment, job.timeout_s).url
        host = url.partition("//")[2]
        say(f"version {version} serves at {url}")
        say(f'try: curl -H "Host: {host}" http://${{INGRESS_HOST}}:${{INGRESS_PORT}}/v1/models/{model}:predict -d @request.json')
    result = {
        "name": job.deployment,
        "namespace": job.namespace,
        "model": model,
        "version": version,
        "uri": uri,
        "digest": digest,
        "url": url,
        "archived": archived.isoformat(timespec="milliseconds"),
    }
    (job.pfs / "out" / DEPLOY_INFO).write_text(write_yaml(result))


def change(job: DeployJob) -> None:
    """Promote the canary, or go back to the version before, and wait until that serves.

    Raises:
        PdkError: with what the user needs to know.
    """
    kserve = KServe(job.kubeconfig)
    act = kserve.promote if job.action == "promote" else kserve.roll_back
    made = act(job.namespace, job.deployment)
    version = made["metadata"]["annotations"].get(MODEL_VERSION) or "without a name"
    say(f"InferenceService {job.namespace}/{job.deployment} was set to version {version}")
    if job.wait:
        say(f"version {version} serves at {kserve.wait(job.namespace, job.deployment, job.timeout_s).url}")


def main() -> int:
    """The container's entry point: 0, or 1 with one clear message."""
    from pdk.flow.deploy.arguments import parse

    clock.begin()
    try:
        job = parse()
        (run if job.action == "deploy" else change)(job)
    except PdkError as error:
        say(f"deploy: {error}")
        return 1
    say(clock.report())
    return 0
