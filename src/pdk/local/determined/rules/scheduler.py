"""Which trials get the machine's slots next: the more urgent ones first, then whose experiment holds the least for its weight.

A trial that is more urgent than others and finds no room has them save themselves and wait (`to_preempt`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Choice:
    """Trials that start now, in their order, and the one that is first in line and finds no room, if any."""

    starting: list[Waiting]
    blocked: Waiting | None = None


def choose(candidates: Iterable[Waiting], held: Mapping[int, int], free: int, places: int) -> Choice:
    """Return who starts.

    Args:
        held: slots by experiment.
        free: slots that nobody holds. What is first in line and does not fit is waited for: nothing smaller passes it.
        places: how many trials without a slot may start.
    """
    left, shares, chosen = list(candidates), Counter(held), list[Waiting]()
    while left:
        first = min(left, key=lambda one: (one.priority, shares[one.experiment] / one.weight, one.experiment, one.trial))
        left.remove(first)
        if first.max_slots is not None and shares[first.experiment] + first.slots > first.max_slots:
            continue
        if first.slots > free:
            return Choice(chosen, first)
        if not first.slots:
            if places <= 0:
                continue
            places -= 1
        chosen.append(first)
        shares[first.experiment] += first.slots
        free -= first.slots
    return Choice(chosen)


def to_preempt(blocked: Waiting, running: Iterable[Waiting], free: int) -> list[Waiting]:
    """Return the least urgent of the running trials that must give way so that `blocked` fits; none unless that is enough."""
    chosen = list[Waiting]()
    for one in sorted(running, key=lambda one: (-one.priority, -one.trial)):
        if free >= blocked.slots:
            break
        if one.priority > blocked.priority and one.slots:
            chosen.append(one)
            free += one.slots
    return chosen if free >= blocked.slots else []
