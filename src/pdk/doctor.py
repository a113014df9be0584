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

from pdk.errors import PdkError

if TYPE_CHECKING:
    from pdk.engines.determined import Determined
    from pdk.engines.kserve import KServe
    from pdk.engines.pachyderm import Pachyderm

VERSIONS = {"Pachyderm": "2.12.", "Determined": "0.38."}  # what PDK is tested with
CONNECT_S = 5.0
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
    """

    pachyderm: Callable[[], Pachyderm]
    determined: Callable[[], Determined]
    kserve: Callable[[], KServe]
    master: str
    ingress: tuple[str, int]
    namespace: str
    state: str = ""


def examine(places: Places) -> Iterator[Finding]:
    """All findings, in the order of the flow."""
    yield from _pachyderm(places)
    yield from _determined(places)
    yield from _kubernetes(places)
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
        count = engine.count_repos()
        yield Finding("Pachyderm permissions", "ok", f"{count} repos can be seen at {engine.address}")
    except PdkError as error:
        yield Finding(
            "Pachyderm permissions", "failed", str(error), "jobs read and write repos", "set PACH_TOKEN to a token that may read them"
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
            "Determined agents", "failed", "no slot", "experiments wait for ever", "add an agent, or enable one: `det agent list`"
        )


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


def names_for(runtimes: Mapping[str, tuple[str, ...]], model_format: str) -> list[str]:
    """The runtimes that serve a model format."""
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
