"""Whether everything that the flow needs is there: what ``pdk doctor`` finds, why it matters, and what to do.

The same checks for the local servers and for a cluster: they ask the engines at their addresses, as the flow does.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pdk.errors import AuthError, PdkError
from pdk.stores import Store, bucket_of

if TYPE_CHECKING:
    from pdk.engines.determined import Determined
    from pdk.engines.kserve import KServe
    from pdk.engines.pachyderm import Pachyderm

VERSIONS = {"Pachyderm": "2.12.", "Determined": "0.38."}  # what PDK is tested with
CONNECT_S = 5.0  # until an address counts as not reachable
# how KServe, EKS, GKE and AKS are told who a service account is to a model store
IDENTITIES = (
    "serving.kserve.io/s3-endpoint",
    "eks.amazonaws.com/role-arn",
    "iam.gke.io/gcp-service-account",
    "azure.workload.identity/client-id",
)
CHECKPOINTS = {"s3": "aws", "gcs": "gcp", "azure": "azure"}  # Determined's word for a checkpoint storage → the cloud that it is of
DISK = 5 << 30  # bytes that training and archives should find free


@dataclass(frozen=True)
class Finding:
    """What one check found: ``ok``, ``warning`` or ``failed``; with why it matters and what to do where it is not ok."""

    check: str
    state: str
    found: str
    matters: str = ""
    todo: str = ""


@dataclass(frozen=True)
class Places:
    """Whom to ask. Functions, since an engine that is away must not keep the others from being looked at.

    Args:
        master: Determined's URL.
        ingress: host and port where predictions are sent.
        namespace: of the InferenceServices.
        state: a folder whose disk fills with what is trained; empty where that is not on this machine.
        account: service account of the predictors.
        store: the bucket that models are put into; without one they go into a Pachyderm repo.
    """

    pachyderm: Callable[[], Pachyderm]
    determined: Callable[[], Determined]
    kserve: Callable[[], KServe]
    master: str
    ingress: tuple[str, int]
    namespace: str
    state: str = ""
    account: str = "pach-deploy"
    store: Store | None = None


def examine(places: Places) -> Iterator[Finding]:
    """Give all findings, in the order of the flow."""
    yield from _pachyderm(places)
    yield from _determined(places)
    yield from _kubernetes(places)
    yield from _model_store(places)
    yield _ingress(*places.ingress)
    yield _program("git", "the train step fetches experiments with it")
    if places.state:
        yield _disk(places.state)


def _version(engine: str, found: str) -> Finding:
    if found.lstrip("v").startswith(VERSIONS[engine]):
        return Finding(f"{engine} version", "ok", found)
    wanted = f"{VERSIONS[engine]}x"
    return Finding(
        f"{engine} version", "warning", found, f"PDK is tested with {wanted}; calls may differ", f"use {engine} {wanted} if something fails"
    )


def _pachyderm(places: Places) -> Iterator[Finding]:
    matters = "without it there is no versioned data, no job and no model store"
    try:
        engine = places.pachyderm()
        yield _version("Pachyderm", engine.version())
    except PdkError as error:
        yield Finding(
            "Pachyderm", "failed", str(error), matters, "start it (`pdk up`), or set PACHD_ADDRESS and PACH_TOKEN to one that runs"
        )
        return
    try:
        count = len(engine.repos())
        yield Finding("Pachyderm permissions", "ok", f"{count} repos can be seen at {engine.address}")
    except PdkError as error:
        yield Finding(
            "Pachyderm permissions",
            "failed",
            str(error),
            "jobs read and write repos",
            "log in with pachctl, or set PACH_TOKEN to a token that may read them",
        )


def _determined(places: Places) -> Iterator[Finding]:
    parts = urlsplit(places.master)
    try:
        socket.create_connection((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), CONNECT_S).close()
    except OSError as error:  # the client itself would wait for a master that is only just starting
        found = f"{places.master}: {error}"
        yield Finding(
            "Determined", "failed", found, "without it nothing is trained", "start it (`pdk up`), or set DET_MASTER to one that runs"
        )
        return
    try:
        engine = places.determined()
        yield _version("Determined", engine.version())
    except PdkError as error:
        todo = "start it (`pdk up`), or set DET_MASTER, DET_USER and DET_PASS to a master that runs"
        yield Finding("Determined", "failed", str(error), "without it nothing is trained", todo)
        return
    try:
        slots = engine.slots()
    except PdkError as error:
        yield Finding("Determined agents", "failed", str(error), "experiments run on their slots", "look at `det agent list`")
        return
    if slots:
        yield Finding("Determined agents", "ok", f"{slots} slots at {engine.master}")
    else:
        yield Finding(
            "Determined agents",
            "warning",
            "no slot by now",
            "experiments wait for one",
            "nothing where nodes scale from zero; else add an agent, or enable one: `det agent list`",
        )
    yield _checkpoints(engine)


def _checkpoints(engine: Determined) -> Finding:
    """Return where trials keep checkpoints. A bucket is looked for from here, with this user's own credentials."""
    check, matters = "checkpoint storage", "what was trained is kept there, and read from there to be served"
    try:
        kept = engine.checkpoint_storage()
    except AuthError:
        return Finding(check, "warning", "only administrators may see the master's", matters, "look as one: DET_USER=admin")
    except PdkError as error:
        return Finding(check, "failed", str(error), matters, "correct checkpoint_storage in the master's configuration")
    kind, bucket = str(kept.get("type") or "none"), str(kept.get("bucket") or kept.get("container") or "")
    if kind not in CHECKPOINTS:
        place = kept.get("host_path") or kept.get("container_path") or ""
        if kind in ("shared_fs", "directory") and place:
            return Finding(check, "ok", f"{kind} {place}")
        return Finding(check, "failed", f"{kind} {place}", matters, "set checkpoint_storage in the master's configuration")
    try:
        bucket_of(CHECKPOINTS[kind], bucket).check()
    except PdkError as error:
        todo = "nothing, if trials have credentials of their own; else create the bucket, or give its credentials to the trials"
        return Finding(check, "warning", f"{kind} bucket {bucket!r}, not reachable from here: {error}", matters, todo)
    return Finding(check, "ok", f"{kind} bucket {bucket!r}")


def _kubernetes(places: Places) -> Iterator[Finding]:
    try:
        engine = places.kserve()
        names = engine.runtimes()
    except PdkError as error:
        todo = "start it (`pdk up`), or set KUBECONFIG to a cluster with KServe"
        yield Finding("Kubernetes and KServe", "failed", str(error), "without it no model is served", todo)
        return
    yield Finding("Kubernetes and KServe", "ok", f"answers; {len(names)} ClusterServingRuntimes")
    if names_for(names, "mar"):
        yield Finding("runtime for model format mar", "ok", ", ".join(names_for(names, "mar")))
    else:
        todo = "kubectl apply -k deploy/base"
        yield Finding("runtime for model format mar", "failed", "none", "KServe would not know how to serve an archive", todo)
    try:
        engine.try_out(places.namespace)
        yield Finding("permission to deploy", "ok", f"InferenceServices may be made in namespace {places.namespace!r}")
    except PdkError as error:
        todo = f"create the namespace, or have a role bound that may create and patch InferenceServices in {places.namespace!r}"
        yield Finding("permission to deploy", "failed", str(error), "the deploy step makes InferenceServices there", todo)


def _model_store(places: Places) -> Iterator[Finding]:
    """Give where models are put, and who the predictors are that read them."""
    if places.store is not None:
        try:
            places.store.check()
            yield Finding("model store", "ok", str(places.store))
        except PdkError as error:
            todo = "create the bucket, and allow the deploy step's service account to write to it"
            yield Finding("model store", "failed", str(error), "the deploy step puts archives there", todo)
    check, matters = "predictors' identity", "predictors read the model store with it"
    try:
        notes = places.kserve().account(places.namespace, places.account)
    except PdkError as error:
        todo = f"apply an overlay of deploy/, or make service account {places.account!r} and its secret in {places.namespace!r}"
        yield Finding(check, "failed", str(error), matters, todo)
        return
    who = next((f"{key} {notes[key]}" for key in IDENTITIES if notes.get(key)), None)
    if who is None:
        todo = f"annotate service account {places.account!r} ({', '.join(IDENTITIES[1:])}), or give it a secret with {IDENTITIES[0]}"
        yield Finding(check, "warning", f"service account {places.account!r} has no credentials of a store", matters, todo)
    else:
        yield Finding(check, "ok", f"service account {places.account!r}: {who}")


def names_for(runtimes: Mapping[str, tuple[str, ...]], model_format: str) -> list[str]:
    """Return the runtimes that serve a model format."""
    return sorted(name for name, formats in runtimes.items() if model_format in formats)


def _ingress(host: str, port: int) -> Finding:
    try:
        with socket.create_connection((host, port), CONNECT_S):
            return Finding("ingress", "ok", f"{host}:{port} takes connections")
    except OSError as error:
        todo = "set INGRESS_HOST and INGRESS_PORT to the ingress of the cluster, or start `pdk up`"
        return Finding("ingress", "failed", f"{host}:{port}: {error}", "predictions are sent there", todo)


def _program(name: str, matters: str) -> Finding:
    if (path := shutil.which(name)) is not None:
        return Finding(name, "ok", path)
    return Finding(name, "failed", "not on PATH", matters, f"install {name}")


def _disk(path: str) -> Finding:
    free = shutil.disk_usage(path).free
    said = f"{free / (1 << 30):.1f} GiB free below {path}"
    if free >= DISK:
        return Finding("disk", "ok", said)
    return Finding("disk", "warning", said, "checkpoints and archives are kept there; a full disk fails jobs", "free some, or `pdk gc`")
