"""Which trials get the machine's slots next: the more urgent ones first, then whose experiment holds the least for its weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PRIORITY = 42  # of an experiment that names none; 1 is the most urgent, 99 the least


@dataclass(frozen=True)
class Waiting:
    """A trial that could run."""

    trial: int
    experiment: int
    slots: int
    priority: int = PRIORITY
    weight: float = 1.0
    max_slots: int | None = None


def waiting(trial: int, experiment: int, resources: Mapping[str, Any]) -> Waiting:
    """A trial with what the ``resources`` section of its experiment's config asks for."""
    return Waiting(
        trial,
        experiment,
        int(resources["slots_per_trial"]),
        int(resources.get("priority") or PRIORITY),
        float(resources.get("weight") or 1.0),
        resources.get("max_slots"),
    )


def choose(candidates: Iterable[Waiting], held: Mapping[int, int], free: int) -> list[Waiting]:
    """Those that start now, in their order.

    Args:
        held: slots by experiment.
        free: slots that nobody holds. What is first in line and does not fit is waited for: nothing smaller passes it.
    """
    left, shares, chosen = list(candidates), Counter(held), list[Waiting]()
    while left:
        first = min(left, key=lambda one: (one.priority, shares[one.experiment] / one.weight, one.experiment, one.trial))
        left.remove(first)
        if first.max_slots is not None and shares[first.experiment] + first.slots > first.max_slots:
            continue
        if first.slots > free:
            break
        chosen.append(first)
        shares[first.experiment] += first.slots
        free -= first.slots
    return chosen
