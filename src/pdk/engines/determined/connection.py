"""The way to one Determined; the SDK's errors stop here."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import requests
from determined.common import api
from determined.common.api import bindings
from determined.experimental import Determined as Sdk

from pdk.engines.patience import START_S, patiently
from pdk.errors import AuthError, Conflict, EngineError, NotFound, NotSupported, PdkError, TemporaryError, UserError

T = TypeVar("T")
INVALID_CONFIG = "invalid experiment configuration"  # the engine calls that an internal error, and it is the user's
SECRET_KEY = re.compile(r"(^|_)(token|password|passwd|secret|secret_key|access_key|api_key)$", re.IGNORECASE)
HYPERPARAMETERS = ("hparams", "hyperparameters")  # what a model is built from: a tokenizer is no token


@contextlib.contextmanager
def mapped_errors(address: str) -> Iterator[None]:
    """Raise the SDK's errors as PDK's."""
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


class Connection:
    """A session with one Determined.

    Args:
        master: its URL.
        user: who logs in.
        password: with what.
        patience_s: seconds for which calls are repeated while it does not answer.
    """

    def __init__(self, master: str, user: str, password: str, patience_s: float = START_S) -> None:
        self.master, self._user, self._password, self._patience_s = master, user, password, patience_s
        patiently("login", self._login, patience_s)

    def _login(self) -> None:
        with mapped_errors(self.master):
            self._sdk = Sdk(master=self.master, user=self._user, password=self._password)
            self._session = self._sdk._session  # noqa: SLF001 - the SDK has no call for a version's name and metadata

    def _call(self, what: str, call: Callable[[], T], seconds: float | None = None) -> T:
        """Return the answer of a call that may be repeated; a session that has expired is begun anew.

        So `call` reads the session itself, each time: one that it was made with may be over.
        """

        def once() -> T:
            with mapped_errors(self.master):
                return call()

        patience_s = self._patience_s if seconds is None else seconds
        try:
            return patiently(what, once, patience_s)
        except AuthError:
            self._login()
            return patiently(what, once, patience_s)

    def version(self) -> str:
        """Return the master's version."""
        return self._call("version", lambda: str(bindings.get_GetMaster(self._session).version))

    def slots(self) -> int:
        """Return how many slots its agents have."""
        return self._call("agents", lambda: sum(len(agent.slots or {}) for agent in bindings.get_GetAgents(self._session).agents))

    def checkpoint_storage(self) -> dict[str, Any]:
        """Return where experiments keep checkpoints unless their config says otherwise; keys of a bucket are left out.

        Raises:
            AuthError: the user is no administrator.
        """
        config = self._call("the master's configuration", lambda: bindings.get_GetMasterConfig(self._session).config)
        return dict(without_secrets(config.get("checkpoint_storage") or {}))


def without_secrets(value: Any, name: str = "") -> Any:
    """Return a copy with empty strings where keys, or NAME=VALUE of variables, speak of tokens and passwords."""
    if isinstance(value, dict):
        return {key: inner if key in HYPERPARAMETERS else without_secrets(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_secrets(entry, name) for entry in value]
    if isinstance(value, str):
        variable, separator, _ = value.partition("=")
        if separator and SECRET_KEY.search(variable):
            return f"{variable}="
        return "" if SECRET_KEY.search(name) else value
    return value


def moment(value: str | None) -> datetime | None:
    """Return a time of an answer; None where it is missing or no time."""
    try:
        found = datetime.fromisoformat(value) if value else None
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC) if found else None
