"""Calls that are repeated while an engine answers nothing, or with a failure of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from pdk.errors import EngineError, TemporaryError
from pdk.timing import WAITING, clock

log = logging.getLogger(__name__)
T = TypeVar("T")
START_S = 90.0  # how long an engine may be away at first: longer than its restart, short enough for an address that is wrong
WAIT_S = 900.0  # and while something is waited for that has begun
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 10.0  # between two tries: the first pause, and what doubling ends at


def patiently(what: str, call: Callable[[], T], seconds: float = START_S) -> T:
    """Return the answer of a call that may be repeated.

    Args:
        what: is being done, for the log.
        seconds: after which the last error counts.
    """
    deadline, delay = time.monotonic() + seconds, FIRST_DELAY_S
    while True:
        try:
            with clock.during(WAITING):
                return call()
        except (TemporaryError, EngineError) as error:
            if time.monotonic() + delay > deadline:
                raise
            log.warning("%s: %s; trying again in %g s", what, error, delay)
            with clock.during(WAITING):
                time.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)
