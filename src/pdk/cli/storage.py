"""`pdk fsck`, `pdk gc`, `pdk store cat`: the local Pachyderm server's store, looked after by the server itself."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from pdk.cli.commands import Command
from pdk.cli.common import State, installation
from pdk.environment import named_pachyderm
from pdk.errors import EngineError, NotFound, UserError
from pdk.words import FILE_HEAD

PART = 1 << 20  # bytes of a file that are read at once


def call(state: Path | None, path: str, method: str = "POST") -> Any:
    """Ask the server; its HTTP answer's body.

    Raises:
        EngineError: it does not answer, or with an error of its own.
        NotFound: what was asked for is not there.
    """
    found = installation(state)
    address = f"http://{found.host}:{found.ports.s3}/-/{path}"
    headers = {"Authorization": f"Bearer {found.secret()}", "Content-Type": "application/json"}
    request = urllib.request.Request(address, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return answer.read()
    except urllib.error.HTTPError as error:
        text = json.loads(error.read() or b"{}").get("error", error.reason)
        raise (NotFound if error.code == 404 else EngineError)(text) from error
    except urllib.error.URLError as error:
        raise EngineError(f"the Pachyderm server at {address} does not answer ({error.reason}); start it with `pdk up`") from error


def local_put(state: Path | None) -> Callable[..., str] | None:
    """Return a way to put files that saves a message for each of them; None where the Pachyderm is not an installation of ours."""
    if state is None and named_pachyderm() is not None:
        return None
    found = installation(state)

    def put(project: str, repo: str, branch: str, files: Mapping[str, str | Path], *, append: bool, sent: Callable[[int], object]) -> str:
        names = "/".join(quote(name, safe="") for name in (project, repo, branch))
        connection = http.client.HTTPConnection(found.host, found.ports.s3)
        headers = {"Authorization": f"Bearer {found.secret()}", "Content-Type": "application/x-pdk-files"}
        try:
            connection.request("POST", f"/-/put/{names}?append={int(append)}", packed(files, sent), headers, encode_chunked=True)
            answer = connection.getresponse()
            content = json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the Pachyderm server at {found.host}:{found.ports.s3} broke off: {error}; nothing was written") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise (NotFound if answer.status == 404 else UserError)(content.get("error", answer.reason))
        return str(content["commit"])

    return put


def packed(files: Mapping[str, str | Path], sent: Callable[[int], object]) -> Iterator[bytes]:
    """Files as the server takes them in one stream: before each its `FILE_HEAD`."""
    buffer = bytearray()
    for path, source in files.items():
        name = path.encode()
        file = os.open(source, os.O_RDONLY)
        try:
            size = left = os.fstat(file).st_size
            buffer += FILE_HEAD.pack(len(name), size) + name
            while left:
                part = os.read(file, min(left, PART))
                if not part:
                    raise UserError(f"{source} became shorter while it was read; nothing was written")
                buffer += part
                left -= len(part)
                if len(buffer) >= PART:
                    sent(len(buffer))
                    yield bytes(buffer)
                    buffer.clear()
        finally:
            os.close(file)
    sent(len(buffer))
    yield bytes(buffer)


def fsck(
    read_data_subset: Annotated[str, typer.Option(help="Share of the contents whose hashes are checked.", metavar="N%")] = "100%",
    state: State = None,
) -> None:
    """Check the local store: contents against their hashes, folders, commits, provenance. Exits 1 when something is damaged."""
    share = read_data_subset.rstrip("%")
    if not read_data_subset.endswith("%") or not share.replace(".", "", 1).isdigit() or float(share) > 100:
        raise UserError(f"--read-data-subset {read_data_subset!r}: a share like 10% is expected")
    answer = json.loads(call(state, f"fsck?share={float(share) / 100}"))
    for problem in answer["problems"]:
        typer.echo(problem)
    found = len(answer["problems"])
    typer.echo(f"{answer['contents']} contents, {answer['commits']} commits: " + (f"{found} problems" if found else "no problems"))
    if found:
        raise typer.Exit(1)


def gc(state: State = None) -> None:
    """Remove contents that nothing refers to any more, beside running writers; the server does it by itself every hour."""
    answer = json.loads(call(state, "gc"))
    typer.echo(f"{answer['contents']} contents of {answer['size']} bytes removed, {answer['packs']} packs removed")


def cat(name: Annotated[str, typer.Argument(metavar="HASH", help="Hash of a content, in hex.")], state: State = None) -> None:
    """Write a content of the store to standard output."""
    typer.get_binary_stream("stdout").write(call(state, f"content/{name}", "GET"))


COMMANDS = (
    Command("store cat", cat),
    Command("fsck", fsck),
    Command("gc", gc),
)
