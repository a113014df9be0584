"""`pdk rollout`: where a service stands, and forth or back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdk.cli import rows
from pdk.cli.commands import Command
from pdk.cli.common import Output, State, catalog, kserve, show
from pdk.installation import MODELS_NAMESPACE
from pdk.words import MODEL_VERSION

if TYPE_CHECKING:
    from pdk.engines.kserve import KServe

Service = Annotated[str, typer.Argument(help="InferenceService: NAME or NAME.NAMESPACE.")]
Wait = Annotated[float, typer.Option("--timeout", help="Seconds to wait until it serves; 0 does not wait.")]


def _split(service: str) -> tuple[str, str]:
    name, _, namespace = service.partition(".")
    return namespace or MODELS_NAMESPACE, name


def status(service: Service, state: State = None, output: Output = "table") -> None:
    """Which versions serve, and what share of the requests each gets."""
    namespace, name = _split(service)
    show([rows.rollout(catalog(state).services(namespace).get(f"{namespace}/{name}"))], output)


def _act(service: str, act: Callable[[KServe], Callable[[str, str], dict[str, Any]]], engine: KServe, timeout: float) -> None:
    namespace, name = _split(service)
    made = act(engine)(namespace, name)
    version = (made["metadata"].get("annotations") or {}).get(MODEL_VERSION) or "without a name"
    if timeout > 0:
        engine.wait(namespace, name, timeout)
    typer.echo(f"{namespace}/{name}: version {version}" + (" serves" if timeout > 0 else " was asked for"))


def promote(service: Service, state: State = None, timeout: Wait = 600.0) -> None:
    """Give all requests to the version that has a share of them."""
    _act(service, lambda engine: engine.promote, kserve(state), timeout)


def rollback(service: Service, state: State = None, timeout: Wait = 600.0) -> None:
    """Go back to the version before."""
    _act(service, lambda engine: engine.roll_back, kserve(state), timeout)


COMMANDS = (
    Command("rollout status", status),
    Command("rollout promote", promote),
    Command("rollout rollback", rollback),
)
