"""The settings of the serving runtime, with default, unit and reason. Other limits stand where they hold: docs/settings.md lists them."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import dataclass


def share(text: str) -> float:
    """Return a share between 0 and 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: something else.
    """
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")


@dataclass(frozen=True)
class Serving:
    """How the runtime answers."""

    body_limit: int = 64 << 20  # bytes of a request; a photograph in base64 has a few MB
    queue: int = 256  # requests that may wait for the model; more are answered 503, or memory would grow without bound
    threads: int = 1  # torch threads of a worker: replicas scale better than threads on small models
    receive_s: float = 60.0  # seconds that a request may take to arrive; slower clients would hold memory for ever
    keep_alive_s: int = 75  # seconds that an idle connection is kept: longer than proxies keep theirs, so that they close first
    crash_limit: int = 5  # deaths of a model's workers within crash_window_s that stop the server
    crash_window_s: float = 60.0
    drain_s: int = 30  # seconds that open requests get on SIGTERM, as Kubernetes' grace period
