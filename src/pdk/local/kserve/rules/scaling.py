"""How many replicas of a predictor are needed. Decisions only, on what the gateway reports of open requests.

As Knative's autoscaler: on the mean of open requests over a window, up at once, down (and to zero) after a whole window; a request
that finds no replica starts one. Without ``maxReplicas`` a machine of one's own runs no more than ``minReplicas``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from pdk.local.kserve.rules.rollout import annotation, mode_of

WINDOW = "autoscaling.knative.dev/window"
WINDOW_S = 60.0  # Knative's stable window
PANIC_S = 2.0  # over which the mean counts for scaling up
TARGET = 4.0  # open requests for each replica, where the spec names none; a worker answers one after the other


def bounds(isvc: Mapping[str, Any]) -> tuple[int, int]:
    """Return the least and the most replicas."""
    predictor = isvc["spec"]["predictor"]
    least = int(predictor.get("minReplicas", 1))
    if mode_of(isvc) != "Knative":
        least = max(1, least)
    return least, max(least, 1, int(predictor.get("maxReplicas") or 0))


def window_of(isvc: Mapping[str, Any]) -> float:
    """Return the window in seconds; ``6s`` is the shortest that Knative takes."""
    text = annotation(isvc, WINDOW) or ""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        return max(6.0, float(text[:-1]) * units[text[-1:]])
    except (KeyError, ValueError):
        return WINDOW_S


def target_of(isvc: Mapping[str, Any]) -> float:
    """Open requests that a replica is to have."""
    predictor = isvc["spec"]["predictor"]
    return float(predictor.get("scaleTarget") or predictor.get("containerConcurrency") or TARGET)


class Demand:
    """Open requests of one service, as they were reported."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def report(self, at: float, count: float) -> None:
        """`count` requests were open at the time `at` (seconds)."""
        self._seen.append((at, count))

    def mean(self, now: float, over_s: float) -> float:
        """Return their mean."""
        recent = [count for at, count in self._seen if at > now - over_s]
        return sum(recent) / len(recent) if recent else 0.0

    def quiet(self, now: float, over_s: float) -> bool:
        """Return whether none was open for so long."""
        return not any(count for at, count in self._seen if at > now - over_s)

    def forget(self, before: float) -> None:
        """What no window looks at any more."""
        while self._seen and self._seen[0][0] < before:
            self._seen.popleft()


def replicas(isvc: Mapping[str, Any], demand: Demand, present: int, since: float, now: float) -> int:
    """Return how many are needed.

    Args:
        present: how many there are.
        since: when their number was changed last; it only falls a window after that.
    """
    least, most = bounds(isvc)
    window, target = window_of(isvc), target_of(isvc)
    demand.forget(now - window)
    if least == most:
        return least
    urgent = math.ceil(demand.mean(now, PANIC_S) / target)
    if urgent > present:
        return min(most, urgent)
    if now - since < window:
        return max(least, min(most, present))
    lasting = math.ceil(demand.mean(now, window) / target)
    if least == 0 and present > 0 and lasting <= 1 and not demand.quiet(now, window):
        lasting = 1
    return max(least, min(most, lasting, present))
