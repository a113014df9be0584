"""`pdk rollout`: where a service stands, and forth or back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdk.cli.common import Output, State, kserve, show
from pdk.errors import NotFound
from pdk.words import MODEL_VERSION

if TYPE_CHECKING:
    from pdk.engines.kserve import KServe

rollout = typer.Typer(name="rollout", help="Versions of a served model: status, promote, rollback.", no_args_is_help=True)
Service = Annotated[str, typer.Argument(help="InferenceService: NAME or NAME.NAMESPACE.")]
Wait = Annotated[float, typer.Option("--timeout", help="Seconds to wait until it serves; 0 does not wait.")]


def _split(service: str) -> tuple[str, str]:
    name, _, namespace = service.partition(".")
    return namespace or "models", name


@rollout.command("status")
def status(service: Service, state: State = None, output: Output = "table") -> None:
    """Which versions serve, and what share of the requests each gets."""
    from pdk.engines.kserve import CANARY, status_of

    namespace, name = _split(service)
    body = kserve(state).find(namespace, name)
    if body is None:
        raise NotFound(f"there is no InferenceService {namespace}/{name}")
    found = status_of(body)
    component = ((body.get("status") or {}).get("components") or {}).get("predictor") or {}
    row = {
        "service": name,
        "version": (body["metadata"].get("annotations") or {}).get(MODEL_VERSION, ""),
        "phase": found.phase,
        "canary": body["spec"]["predictor"].get(CANARY, ""),
        "traffic": ", ".join(f"{entry['revisionName']} {entry['percent']} %" for entry in component.get("traffic") or []) or "newest 100 %",
        "message": found.message,
    }
    show([row], output)


def _act(service: str, act: Callable[[KServe], Callable[[str, str], dict[str, Any]]], engine: KServe, timeout: float) -> None:
    namespace, name = _split(service)
    made = act(engine)(namespace, name)
    version = (made["metadata"].get("annotations") or {}).get(MODEL_VERSION) or "without a name"
    if timeout > 0:
        engine.wait(namespace, name, timeout)
    typer.echo(f"{namespace}/{name}: version {version}" + (" serves" if timeout > 0 else " was asked for"))


@rollout.command("promote")
def promote(service: Service, state: State = None, timeout: Wait = 600.0) -> None:
    """Give all requests to the version that has a share of them."""
    _act(service, lambda engine: engine.promote, kserve(state), timeout)


@rollout.command("rollback")
def rollback(service: Service, state: State = None, timeout: Wait = 600.0) -> None:
    """Go back to the version before."""
    _act(service, lambda engine: engine.roll_back, kserve(state), timeout)


def register(app: typer.Typer) -> None:
    """Put the group under `pdk`."""
    app.add_typer(rollout)
