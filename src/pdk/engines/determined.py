"""Determined, as the flow sees it."""

from __future__ import annotations

import contextlib
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests
from determined.common import api
from determined.common.api import bindings
from determined.errors import MultipleDownloadsFailed, ProxiedDownloadFailed
from determined.experimental import Determined as Sdk

from pdk.engines.patience import START_S, WAIT_S, patiently
from pdk.errors import AuthError, Conflict, EngineError, NotFound, NotSupported, PdkError, TemporaryError, UserError
from pdk.provenance import Provenance

T = TypeVar("T")
INVALID_CONFIG = "invalid experiment configuration"  # the engine calls that an internal error, and it is the user's
SECRET_KEY = re.compile(r"(^|_)(token|password|passwd|secret|secret_key|access_key|api_key)$", re.IGNORECASE)
HYPERPARAMETERS = ("hparams", "hyperparameters")  # what a model is built from: a tokenizer is no token

STATES = {  # the engine's → ours; an unknown one raises
    **dict.fromkeys(("ACTIVE", "QUEUED", "PULLING", "STARTING", "RUNNING", "PAUSED"), "running"),
    **dict.fromkeys(("STOPPING_COMPLETED", "STOPPING_CANCELED", "STOPPING_ERROR", "STOPPING_KILLED"), "running"),
    "COMPLETED": "completed",
    **dict.fromkeys(("CANCELED", "ERROR", "DELETED", "DELETING", "DELETE_FAILED"), "failed"),
}


@dataclass(frozen=True)
class Status:
    """Where an experiment stands: phase (running, completed, failed), the engine's word for it, 0 to 1."""

    phase: str
    state: str
    progress: float


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    number: int
    name: str
    checkpoint: str
    provenance: Provenance = field(default_factory=Provenance)


@contextlib.contextmanager
def _errors(address: str) -> Iterator[None]:
    """Vendor errors stop here."""
    try:
        yield
    except api.errors.NotFoundException as error:
        raise NotFound(f"Determined at {address}: {error}") from error
    except (api.errors.UnauthenticatedException, api.errors.ForbiddenException) as error:
        raise AuthError(f"Determined at {address} refuses the login: {error}; check DET_USER and DET_PASSWORD") from error
    except api.errors.APIException as error:
        kinds: dict[int, type[PdkError]] = {400: UserError, 409: Conflict, 501: NotSupported}
        kind = UserError if INVALID_CONFIG in str(error) else kinds.get(error.status_code, EngineError)
        raise kind(f"Determined at {address}: {error}") from error
    except (api.errors.MasterNotFoundException, api.errors.BadRequestException, requests.RequestException) as error:
        raise TemporaryError(f"Determined at {address} does not answer ({error}); is it running, and is DET_MASTER right?") from error


class Determined:
    """One Determined.

    Args:
        master: its URL.
        user: who logs in.
        password: with what.
    """

    def __init__(self, master: str, user: str, password: str) -> None:
        self.master, self._user, self._password = master, user, password
        patiently("login", self._login)

    def _login(self) -> None:
        with _errors(self.master):
            self._sdk = Sdk(master=self.master, user=self._user, password=self._password)
            self._session = self._sdk._session  # noqa: SLF001 - the SDK has no call for a version's name and metadata

    def _call(self, what: str, call: Callable[[], T], seconds: float = START_S) -> T:
        """The answer of a call that may be repeated; a session that has expired is begun anew.

        So `call` reads the session itself, each time: one that it was made with may be over.
        """

        def once() -> T:
            with _errors(self.master):
                return call()

        try:
            return patiently(what, once, seconds)
        except AuthError:
            self._login()
            return patiently(what, once, seconds)

    def ensure_project(self, workspace: str | None, project: str | None) -> None:
        """Create the workspace and project that a config names, where they are missing."""
        if not workspace:
            return

        def ensure() -> None:
            found = bindings.get_GetWorkspaces(self._session, nameCaseSensitive=workspace).workspaces
            id_ = found[0].id if found else self._sdk.create_workspace(workspace).id
            names = [entry.name for entry in bindings.get_GetWorkspaceProjects(self._session, id=id_).projects]
            if project and project not in names:
                body = bindings.v1PostProjectRequest(name=project, workspaceId=id_)
                bindings.post_PostProject(self._session, body=body, workspaceId=id_)

        self._call("workspace and project", ensure)

    def find_experiment(self, label: str) -> int | None:
        """The experiment that carries a label."""
        return self._call("experiments", lambda: self._labelled(label))

    def _labelled(self, label: str) -> int | None:
        found = bindings.get_GetExperiments(self._session, labels=[label]).experiments
        return max((entry.id for entry in found), default=None)

    def create_experiment(self, config: Mapping[str, Any], code: Path, label: str) -> int:
        """Start an experiment from a folder of code; returns its number.

        Args:
            label: among the config's labels and no other experiment's: what was made although no answer came is found by it.

        Raises:
            UserError: the config is wrong.
        """

        def create() -> int:
            return self._labelled(label) or int(self._sdk.create_experiment(config=dict(config), model_dir=str(code)).id)

        return self._call("create the experiment", create)

    def status(self, experiment: int) -> Status:
        """Where an experiment stands.

        Raises:
            EngineError: a state that we do not know.
        """
        found = self._call(
            "experiment status", lambda: bindings.get_GetExperiment(self._session, experimentId=experiment), WAIT_S
        ).experiment
        state = str(found.state.name).removeprefix("STATE_")
        if state not in STATES:
            raise EngineError(f"experiment {experiment} is in state {state}, which this version of PDK does not know")
        return Status(STATES[state], state, float(found.progress or 0.0))

    def log_lines(self, experiment: int, skip: int = 0) -> list[str]:
        """The log of the experiment's trials from line `skip` on."""

        def read() -> list[str]:
            trials = bindings.get_GetExperimentTrials(self._session, experimentId=experiment).trials
            lines: list[str] = []
            for trial in trials:
                lines += [entry.message.rstrip("\n") for entry in bindings.get_TrialLogs(self._session, trialId=trial.id)]
            return lines[skip:]

        return self._call("experiment log", read, WAIT_S)

    def best_checkpoint(self, experiment: int) -> str:
        """UUID of the checkpoint that is best by the searcher's metric.

        Raises:
            NotFound: there is none.
        """
        sort, states = bindings.checkpointv1SortBy.SEARCHER_METRIC, [bindings.checkpointv1State.COMPLETED]

        def read() -> Any:
            return bindings.get_GetExperimentCheckpoints(self._session, id=experiment, limit=1, sortByAttr=sort, states=states)

        found = self._call("checkpoints", read).checkpoints
        if not found:
            raise NotFound(f"experiment {experiment} left no checkpoint; its code must report one")
        return str(found[0].uuid)

    def metrics(self, checkpoint: str) -> Mapping[str, Any]:
        """The validation metrics at a checkpoint."""
        found = self._call("checkpoint", lambda: bindings.get_GetCheckpoint(self._session, checkpointUuid=checkpoint))
        training = found.checkpoint.training
        return dict(training.validationMetrics.avgMetrics or {}) if training and training.validationMetrics else {}

    def download(self, checkpoint: str, target: Path) -> None:
        """Bring a checkpoint's files to `target`, without the credentials that its saved config may hold."""
        target.parent.mkdir(parents=True, exist_ok=True)

        def fetch() -> None:
            # the SDK takes a folder with a metadata.json for complete, so every try begins with an empty one
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
                place = Path(scratch) / "checkpoint"
                try:
                    self._sdk.get_checkpoint(checkpoint).download(path=str(place))
                except (MultipleDownloadsFailed, ProxiedDownloadFailed, tarfile.TarError, EOFError) as error:
                    raise TemporaryError(f"checkpoint {checkpoint} could not be downloaded: {error!r}") from error
                place.rename(target)

        self._call("download the checkpoint", fetch)
        saved = target / "load_data.json"
        if saved.exists():
            saved.write_text(json.dumps(_without_secrets(json.loads(saved.read_text())), indent=1))

    def ensure_model(self, name: str, description: str) -> None:
        """Create a model where it is missing."""
        try:
            self._call("model", lambda: self._sdk.get_model(name))
        except NotFound:
            with contextlib.suppress(Conflict):
                self._call("create the model", lambda: self._sdk.create_model(name, description=description))

    def version(self) -> str:
        """The master's version."""
        return self._call("version", lambda: str(bindings.get_GetMaster(self._session).version))

    def slots(self) -> int:
        """How many slots its agents have."""
        return self._call("agents", lambda: sum(len(agent.slots or {}) for agent in bindings.get_GetAgents(self._session).agents))

    def checkpoint_storage(self) -> dict[str, Any]:
        """Where experiments keep checkpoints unless their config says otherwise; keys of a bucket are left out.

        Raises:
            AuthError: the user is no administrator.
        """
        config = self._call("the master's configuration", lambda: bindings.get_GetMasterConfig(self._session).config)
        return dict(_without_secrets(config.get("checkpoint_storage") or {}))

    def models(self) -> list[str]:
        """The names of all models."""
        return self._call("models", lambda: [str(model.name) for model in self._sdk.list_models()])

    def versions(self, model: str) -> list[Version]:
        """A model's versions, newest first; empty where there is no such model."""
        return self._call("model versions", lambda: self._versions(model))

    def _versions(self, model: str) -> list[Version]:
        order, sort = bindings.v1OrderBy.DESC, bindings.v1GetModelVersionsRequestSortBy.VERSION
        try:
            found = bindings.get_GetModelVersions(self._session, modelName=model, orderBy=order, sortBy=sort).modelVersions
        except api.errors.NotFoundException:
            return []
        return [Version(entry.version, entry.name or "", entry.checkpoint.uuid, Provenance.from_json(entry.metadata)) for entry in found]

    def register(self, model: str, name: str, checkpoint: str, provenance: Provenance, notes: str) -> Version:
        """Register a checkpoint as a version with a name; one of that name that exists already is returned as it is."""
        body = bindings.v1PostModelVersionRequest(
            checkpointUuid=checkpoint, modelName=model, name=name, metadata=provenance.to_json(), notes=notes
        )

        def register() -> Version:
            for present in self._versions(model):
                if present.name == name:
                    return present
            made = bindings.post_PostModelVersion(self._session, body=body, modelName=model).modelVersion
            return Version(made.version, made.name or "", checkpoint, provenance)

        return self._call("register the version", register)


def _without_secrets(value: Any, name: str = "") -> Any:
    """A copy with empty strings where keys, or NAME=VALUE of variables, speak of tokens and passwords."""
    if isinstance(value, dict):
        return {key: inner if key in HYPERPARAMETERS else _without_secrets(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(entry, name) for entry in value]
    if isinstance(value, str):
        variable, separator, _ = value.partition("=")
        if separator and SECRET_KEY.search(variable):
            return f"{variable}="
        return "" if SECRET_KEY.search(name) else value
    return value
