"""What all searchers share: their actions, the trials that a seed makes, and what is kept between two events.

A searcher is one module of this package with one class, and one line in `SEARCHERS`. It decides only: what its decisions lead to is
`search`'s business. It is rebuilt from its config, seed and `state` for every event.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pdk.local.determined.rules import hyperparameters
from pdk.local.determined.rules.fields import FLAG, TEXT, WHOLE, Field
from pdk.local.determined.rules.hyperparameters import Hparams, Random

WORST = sys.float_info.max  # the metric of a trial that failed, whatever is better (and, unlike infinity, JSON)
ERRORED, CANCELED, INVALID = "errored", "canceled", "invalid_hp"  # how a trial can end early


@dataclass(frozen=True)
class Create:
    """Make a trial; `number` counts an experiment's trials from 0."""

    number: int
    seed: int
    hparams: Hparams


@dataclass(frozen=True)
class Stop:
    """Let a trial end: it has trained long enough, or not well enough."""

    number: int


Action = Create | Stop


COMMON: Mapping[str, Field] = {  # the fields of a config's section that every searcher has
    "name": Field(TEXT),
    "metric": Field(TEXT),
    "smaller_is_better": Field(FLAG, True),
    "source_checkpoint_uuid": Field(TEXT),
    "source_trial_id": Field(WHOLE, low=1),
    "max_length": Field(),  # deprecated in 0.38, and read all the same
    "unit": Field(),
}
AT_ONCE: Mapping[str, Field] = {"max_concurrent_trials": Field(WHOLE, 16, low=0)}


def number_of(metrics: Mapping[str, Any], key: str) -> float | None:
    """Return a metric; None where it is missing or no number."""
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def draws(hparams: Mapping[str, Any], seed: int, *, sampled: bool) -> Iterator[Create]:
    """Give the trials that a seed makes, in their order; without hyperparameters where those are laid out and not `sampled`."""
    random, number = Random(seed), 0
    while True:
        chosen = hyperparameters.sample(hparams, random) if sampled else {}
        for _ in range(4):
            random.bits()  # the engine draws a request's UUID here
        yield Create(number, random.below(2**31), chosen)
        number += 1


class Searcher(ABC):
    """One experiment's search.

    Args:
        section: the config's section, complete.
        hparams: the config's hyperparameters.
        seed: the experiment's.
        state: what `state` was after the last event; None before `begin`.
    """

    name: ClassVar[str]
    fields: ClassVar[Mapping[str, Field]] = COMMON
    required: ClassVar[Sequence[str]] = ()
    one_trial: ClassVar[bool] = False  # it makes one trial, which computes with all the cores and can go on with another config
    lays_out: ClassVar[bool] = False  # hyperparameters are points of a grid, not drawn

    def __init__(self, section: Mapping[str, Any], hparams: Mapping[str, Any], seed: int, state: dict[str, Any] | None = None) -> None:
        self.section, self.hparams, self.seed = section, hparams, seed
        self.state: dict[str, Any] = state or {"created": 0, "replaced": 0, "closed": [], "failed": 0, "canceled": 0, "brackets": []}

    # events

    @abstractmethod
    def begin(self) -> list[Action]:
        """Return the first trials."""

    @abstractmethod
    def validated(self, number: int, metrics: Mapping[str, Any]) -> list[Action]:
        """Return what follows from a trial's validation metrics.

        Raises:
            UserError: they do not hold what the searcher looks at.
        """

    @abstractmethod
    def _exited(self, number: int, early: str) -> list[Action]:
        """Return what follows from a trial's end, which is on record already."""

    @abstractmethod
    def progress(self, trained: Mapping[int, float]) -> float:
        """Return how far the search is, from 0 to 1; `trained` is how far its trials are."""

    def exited(self, number: int, early: str = "") -> list[Action]:
        """Return what follows from a trial's end, for good; `early` says how if not by itself or by this searcher."""
        self.state["closed"].append(number)
        self.state["failed"] += early == ERRORED
        self.state["canceled"] += early == CANCELED
        return self._exited(number, early)

    @property
    def verdict(self) -> str:
        """Return what the search has come to; empty while trials are open."""
        created = self.state["created"]
        if len(self.state["closed"]) < created:
            return ""
        if self.state["failed"] >= created:
            return "ERROR"
        return "CANCELED" if self.state["canceled"] >= created else "COMPLETED"

    def _create(self, count: int) -> Iterator[Create]:
        """Make the next trials."""
        points = hyperparameters.grid(self.hparams) if self.lays_out else []
        for create in draws(self.hparams, self.seed, sampled=not self.lays_out):
            if create.number < self.state["created"]:
                continue
            if count == 0:
                return
            count -= 1
            self.state["created"] += 1
            # the engine takes the last point first
            yield Create(create.number, create.seed, points[-1 - create.number]) if points else create


class Counted(Searcher):
    """A search of so many trials, none of which is stopped: as many as may run together, then one for each that ends.

    An experiment that has ended with one of these can be opened again.
    """

    @abstractmethod
    def planned(self) -> int:
        """Return how many trials there are to be."""

    def begin(self) -> list[Action]:
        """Return as many as may run together."""
        return list(self._create(min(self.planned(), self._at_once())))

    def reopen(self, numbers: Collection[int]) -> list[Action]:
        """Run trials that had ended again, with others that the search had not come to."""
        self.state["closed"] = [number for number in self.state["closed"] if number not in numbers]
        self.state["failed"] = self.state["canceled"] = 0
        missing = self.planned() - (self.state["created"] - self.state["replaced"])
        return list(self._create(max(0, min(missing, self._at_once() - len(numbers)))))

    def validated(self, number: int, metrics: Mapping[str, Any]) -> list[Action]:
        """Return nothing: no trial is stopped."""
        del number, metrics
        return []

    def progress(self, trained: Mapping[int, float]) -> float:
        """Return the share of the trials that are done."""
        closed = set(self.state["closed"])
        done = sum(1.0 if number in closed else share for number, share in trained.items())
        return min(1.0, done / max(1, self.planned()))

    def _exited(self, number: int, early: str) -> list[Action]:
        del number, early
        return list(self._create(1)) if self.state["created"] - self.state["replaced"] < self.planned() else []

    def _at_once(self) -> int:
        return int(self.section.get("max_concurrent_trials") or 0) or self.planned()
