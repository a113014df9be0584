"""`pdk predict` and `encode`: ask an endpoint, without curl and base64."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

from pdk.cli.commands import Command
from pdk.cli.common import State, installation
from pdk.errors import EngineError, TemporaryError, UserError

ANSWER_S = 120.0  # until a prediction is given up


def request_body(files: list[Path]) -> dict[str, object]:
    """Return the V1 request for pictures.

    Raises:
        UserError: a file is missing.
    """
    instances = []
    for file in files:
        try:
            instances.append({"data": base64.b64encode(file.read_bytes()).decode()})
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}") from error
    return {"instances": instances}


def encode(files: Annotated[list[Path], typer.Argument(help="Pictures.")]) -> None:
    """Print the request body for pictures."""
    typer.echo(json.dumps(request_body(files)))


def predict(
    service: Annotated[str, typer.Argument(help="InferenceService: NAME or NAME.NAMESPACE.")],
    model: Annotated[str, typer.Argument(help="Model name.")],
    files: Annotated[list[Path], typer.Argument(help="A request body (.json), or pictures.")],
    state: State = None,
) -> None:
    """Send a prediction to the gateway and print the answer."""
    found = installation(state)
    raw = files[0].read_bytes() if files[0].suffix == ".json" else json.dumps(request_body(files)).encode()
    host = f"{service if '.' in service else service + '.models'}.{found.domain}"
    url = f"http://{found.host}:{found.ports.gateway}/v1/models/{model}:predict"
    headers = {"Host": host, "Content-Type": "application/json", "Authorization": f"Bearer {found.secret()}"}
    typer.echo(ask(urllib.request.Request(url, raw, headers)))


def ask(request: urllib.request.Request) -> str:
    """Return the answer's body.

    Raises:
        UserError: the request was at fault.
        EngineError: the predictor was.
        TemporaryError: nobody answers.
    """
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 - the URL is made here
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        kind = UserError if 400 <= error.code < 500 else EngineError
        raise kind(f"the endpoint answered {error.code}: {text}") from error
    except OSError as error:
        raise TemporaryError(f"{request.full_url} does not answer: {error}; is `pdk up` running?") from error


COMMANDS = (
    Command("encode", encode),
    Command("predict", predict),
)
