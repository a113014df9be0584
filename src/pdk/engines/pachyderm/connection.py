"""The way to one Pachyderm; the SDK's errors stop here."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import datetime

import grpc
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from pdk.errors import AuthError, Conflict, EngineError, NotFound, PdkError, TemporaryError, UserError

CODES: dict[grpc.StatusCode, type[PdkError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.INVALID_ARGUMENT: UserError,
    grpc.StatusCode.UNAUTHENTICATED: AuthError,
    grpc.StatusCode.PERMISSION_DENIED: AuthError,
    grpc.StatusCode.UNAVAILABLE: TemporaryError,
}
PART = 1 << 20  # bytes of a file that travel in one message
TARGET = re.compile(r"(?P<repo>[^@:]+)(?:@(?P<commit>[^:=]+)(?:=(?P<id>[0-9a-f]{32}))?)?(?::(?P<path>.*))?")
COMMIT_ID = re.compile(r"[0-9a-f]{32}")


@contextlib.contextmanager
def mapped_errors(address: str) -> Iterator[None]:
    """Raise the SDK's errors as PDK's."""
    try:
        yield
    except grpc.RpcError as error:
        raise _mapped(error, address) from error
    except ConnectionError as error:  # what the SDK makes of an engine that is away
        raise _away(address, str(error).strip()) from error
    except ValueError as error:  # what it makes of any error at the beginning of a file
        if not isinstance(error.__cause__, grpc.RpcError):
            raise
        raise _mapped(error.__cause__, address) from error


def _mapped(error: grpc.RpcError, address: str) -> PdkError:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    kind = CODES.get(code, EngineError)
    return _away(address, text) if kind is TemporaryError else kind(f"Pachyderm at {address}: {text}")


def _away(address: str, text: str) -> TemporaryError:
    return TemporaryError(f"Pachyderm at {address} does not answer ({text}); is it running, and is the address right?")


class Connection:
    """A client of one Pachyderm.

    Args:
        host: its host name.
        port: its gRPC port.
        token: a session token, where it has authentication.
    """

    def __init__(self, host: str, port: int, token: str = "") -> None:
        self.address, self.token = f"{host}:{port}", token
        self.host, self.port = host, port
        self._client = Client(host=host, port=port, auth_token=token or None)

    def version(self) -> str:
        """Return the server's version."""
        with mapped_errors(self.address):
            found = self._client.get_version()
        return f"{found.major}.{found.minor}.{found.micro}"


class Target:
    """``REPO[@BRANCH-OR-COMMIT][:PATH]`` as pachctl reads it.

    Raises:
        UserError: the text is not of that form.
    """

    def __init__(self, text: str, project: str) -> None:
        match = TARGET.fullmatch(text)
        if match is None:
            raise UserError(f"{text!r}: REPO@BRANCH:/PATH is expected")
        name, _, kind = match["repo"].partition(".")
        self.repo = pfs.Repo(name=name, type=kind or "user", project=pfs.Project(name=project))
        self.spelled, self.path = match["commit"] or "", match["path"] or "/"

    @property
    def branch(self) -> pfs.Branch:
        """Return the branch."""
        if not self.spelled:
            raise UserError(f"{self.repo.name!r}: REPO@BRANCH is expected")
        return pfs.Branch(repo=self.repo, name=self.spelled)

    @property
    def commit(self) -> pfs.Commit:
        """Return the commit: an ID, a branch's head, or either with ancestry."""
        if not self.spelled:
            raise UserError(f"{self.repo.name!r}: REPO@BRANCH or REPO@COMMIT is expected")
        if COMMIT_ID.fullmatch(self.spelled[:32]) or re.search(r"[\^~.]", self.spelled):
            return pfs.Commit(repo=self.repo, id=self.spelled)
        return pfs.Commit(repo=self.repo, branch=self.branch)

    @property
    def file(self) -> pfs.File:
        """Return the file."""
        return pfs.File(commit=self.commit, path=self.path)


def repo_of(project: str, repo: str) -> pfs.Repo:
    """Return a repo of files as the SDK spells it."""
    return pfs.Repo(name=repo, type="user", project=pfs.Project(name=project))


def commit_of(project: str, repo: str, id_: str) -> pfs.Commit:
    """Return a commit as the SDK spells it."""
    return pfs.Commit(repo=repo_of(project, repo), id=id_)


def moment(value: datetime | None) -> datetime | None:
    """Return a time of an answer; the SDK gives the epoch where there is none."""
    return value if value and value.year > 1970 else None
