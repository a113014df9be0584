"""One revision of a predictor: brought up from its model store, asked whether it answers, watched, ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from pdk.errors import EngineError, TemporaryError, UserError
from pdk.installation import is_loopback
from pdk.kit import foreign, logs, process
from pdk.kit.spec import Bind, Spec
from pdk.local.kserve.rules.kinds import RUNTIME, Json
from pdk.local.kserve.rules.rollout import Revision
from pdk.local.kserve.runtime import storage
from pdk.local.kserve.store import table

log = logging.getLogger(__name__)
OWN = "own"  # the folder in the run folder that the runtime sees, as /run/pdk
READY = f"{OWN}/ready.json"
FETCH_S, FETCH_AGAIN_S = 60.0, 1.0  # for which a model store may be away, and between two tries
READY_S = 120.0  # a model that is not loaded by then will not be
POLL_S = 0.05  # between two questions whether a new predictor is ready
TAIL_LINES = 20  # of its log that a failed predictor's reason shows
ANSWER_S = 30.0  # until a predictor counts as not answering


class LoadFailed(EngineError):
    """A revision that cannot serve: reason as KServe spells it, and a message for the user."""

    def __init__(self, reason: str, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.reason, self.code = reason, code


@dataclass(frozen=True)
class Replica:
    """One process that serves a revision."""

    revision: str
    pod: str
    handle: process.Handle
    host: str
    port: int
    model: str

    @property
    def answers(self) -> bool:
        """Return whether it answers at this moment."""
        return (self.handle.run_dir / READY).exists() and process.status(self.handle) is None

    @property
    def address(self) -> str:
        """Return where it answers."""
        return f"{self.host}:{self.port}"


def new_pod(revision: str) -> str:
    """Return a name for one process of a revision."""
    return f"{revision}-{secrets.token_hex(3)}"


def runtime_for(db: sqlite3.Connection, model: Json) -> Json:
    """Return the ClusterServingRuntime for a model's format, named or found.

    Raises:
        LoadFailed: none fits.
    """
    wanted = str((model.get("modelFormat") or {}).get("name") or "")
    for runtime in table.listing(db, RUNTIME.resource):
        formats = [entry.get("name") for entry in runtime["spec"].get("supportedModelFormats") or []]
        named = model.get("runtime") in (None, runtime["metadata"]["name"])
        if named and wanted in formats and not runtime["spec"].get("disabled"):
            return runtime
    asked = f" named {model['runtime']!r}" if model.get("runtime") else ""
    raise LoadFailed("NoSupportingRuntime", f"no runtime{asked} found to support the model format {wanted!r}")


@dataclass(frozen=True)
class Place:
    """Where a predictor runs.

    Args:
        run: a run folder of its own.
        cache: where model stores are kept.
        requests: the folder of the service's request log.
        sample: the share of requests whose bodies are logged.
        hide: the installation's state folder, which no handler may see.
    """

    run: Path
    cache: Path
    requests: Path
    sample: float
    hide: Path


async def bring_up(db: sqlite3.Connection, namespace: str, revision: Revision, place: Place) -> Replica:
    """Fetch the model, start its process, wait until it answers.

    Raises:
        LoadFailed: with what the user needs to know.
    """
    model = revision.model
    runtime_for(db, model)
    account = revision.predictor.get("serviceAccountName") or "default"
    try:
        access = storage.access_for(db, namespace, account)
        store = await _fetched(str(model.get("storageUri") or ""), place.cache, access)
    except (UserError, TemporaryError) as error:
        raise LoadFailed("ModelLoadFailed", f"storage initializer: {error}") from error
    (place.run / READY).unlink(missing_ok=True)
    for folder in (place.run / OWN, place.requests):
        folder.mkdir(parents=True, exist_ok=True)
    env = {entry["name"]: str(entry.get("value", "")) for entry in model.get("env") or [] if entry.get("name")}
    handle = await process.start(place.run, _program(place, store, env))
    try:
        return await _until_ready(handle)
    except BaseException:
        await asyncio.shield(process.stop(handle))
        raise


async def _fetched(uri: str, cache: Path, access: storage.S3Access) -> Path:
    """Fetch a model store; one that is away, as an engine in its restart, is waited for."""
    deadline = time.monotonic() + FETCH_S
    while True:
        try:
            return await asyncio.to_thread(storage.fetch, uri, cache, access)
        except TemporaryError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("storage initializer: %s; trying again", error)
            await asyncio.sleep(FETCH_AGAIN_S)


def _program(place: Place, store: Path, env: Mapping[str, str]) -> Spec:
    argv = ["python", "-m", "pdk.serving", "--model-dir", "/mnt/models", "--port", "0", "--ready-file", "/run/pdk/ready.json"]
    argv += ["--request-log", "/run/requests", "--request-log-sample", f"{place.sample:g}"]
    binds = [Bind(store, "/mnt/models", read_only=True), Bind(place.run / OWN, "/run/pdk"),
             Bind(place.requests, "/run/requests")]  # fmt: skip
    return Spec(argv, {**process.base_environment(), **env}, binds=binds, hide=(place.hide,))


async def _until_ready(handle: process.Handle) -> Replica:
    try:
        async with asyncio.timeout(READY_S):
            while (found := adopt(handle)) is None:
                if (ended := process.status(handle)) is not None:
                    tail = "\n".join(logs.tail(handle.log, TAIL_LINES))
                    raise LoadFailed("ModelLoadFailed", f"the predictor ended: {ended.reason()}; its last lines:\n{tail}", ended.code)
                await asyncio.sleep(POLL_S)
            await smoke(found)
    except TimeoutError:
        tail = "\n".join(logs.tail(handle.log, TAIL_LINES))
        raise LoadFailed("RuntimeUnhealthy", f"the predictor was not ready after {READY_S:g} s; its last lines:\n{tail}") from None
    return found


def adopt(handle: process.Handle) -> Replica | None:
    """Return the replica behind a handle, once it is ready."""
    pod = handle.run_dir.name
    match foreign.note(handle.run_dir / READY):
        case {"host": str(host), "port": int(port), "model": str(model)} if is_loopback(host):
            return Replica(pod.rpartition("-")[0], pod, handle, host, port, model)
    return None


async def smoke(replica: Replica) -> None:
    """Ask a new revision whether it is ready; it has answered its own example before it listened.

    Raises:
        LoadFailed: it does not answer as it should.
    """
    path = f"http://{replica.address}/v1/models/{replica.model}"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session, session.get(path) as answer:
            if answer.status != 200:
                raise LoadFailed("RuntimeUnhealthy", f"the model is not ready: {await answer.text()}")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise LoadFailed("RuntimeUnhealthy", f"the predictor does not answer: {error!r}") from error
