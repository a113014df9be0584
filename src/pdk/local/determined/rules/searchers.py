"""Searchers: which trials an experiment makes, and which of them it stops early.

As in Determined 0.38 (its master's pkg/searcher and the ASHA paper, Li et al., arXiv 1810.05934): a trial reports validations whenever it
likes; asha ranks them on *rungs* of training time and stops a trial that is not among the best 1/divisor of its rung. Decisions only: what
they lead to is `search`'s business. A searcher is rebuilt from its config, seed and `state` for every event.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pdk.errors import UserError
from pdk.local.determined.rules import hyperparameters
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


@dataclass(frozen=True)
class Bracket:
    """One asha search: so many trials, ranked on these rungs (each a length of training), at most so many at a time."""

    rungs: tuple[int, ...]
    trials: int
    concurrent: int


def metric_of(searcher: Mapping[str, Any], values: Mapping[str, Any]) -> float | None:
    """Return the value that a searcher looks at, out of a report's metrics; None where it is missing or no number."""
    return _number(values, searcher["metric"])


def _number(metrics: Mapping[str, Any], key: str) -> float | None:
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def rungs(count: int, divisor: float, length: int) -> tuple[int, ...]:
    """The lengths of training at which trials are ranked: the longest is `length`, each one before it `divisor` times shorter."""
    return tuple(max(int(length / divisor ** (count - number - 1)), 1) for number in range(count))


def asha_bracket(searcher: Mapping[str, Any], count: int, trials: int, concurrent: int) -> Bracket:
    """The bracket of an asha search; without a limit, as many trials at a time as let one reach the top rung."""
    divisor = float(searcher["divisor"])
    at_once = min(concurrent, trials) if concurrent > 0 else max(1, min(int(divisor ** (count - 1)), trials))
    return Bracket(rungs(count, divisor, int(searcher["max_time"])), trials, at_once)


MODES: dict[str, Callable[[int], list[int]]] = {
    "aggressive": lambda most: [most],
    "standard": lambda most: list(range((most - 1) // 2 + 1, most + 1)),
    "conservative": lambda most: list(range(1, most + 1)),
}


def adaptive_brackets(searcher: Mapping[str, Any]) -> list[Bracket]:
    """The brackets of adaptive_asha: several asha searches that stop more or less eagerly, with about equal training in each."""
    divisor, trials, length = float(searcher["divisor"]), int(searcher["max_trials"]), int(searcher["max_time"])
    counts = list(searcher.get("bracket_rungs") or ())
    if not counts:
        most = min(int(searcher["max_rungs"]), *(int(math.log(amount) / math.log(divisor)) + 1 for amount in (length, trials)))
        counts = MODES[searcher["mode"]](most)
    counts.sort(reverse=True)
    weights = [divisor ** (count - 1) / count for count in counts]
    shares = [max(int(weight / sum(weights) * trials), 1) for weight in weights]
    shares[0] += max(trials - sum(shares), 0)
    concurrent = int(searcher["max_concurrent_trials"])
    if concurrent:
        whole, rest = divmod(max(concurrent, len(counts)), len(counts))
        at_once = [whole + (number < rest) for number in range(len(counts))]
    else:
        at_once = [max(shares[-1], int(divisor))] * len(counts)
    return [asha_bracket(searcher, *each) for each in zip(counts, shares, at_once, strict=True)]


def draws(hparams: Mapping[str, Any], seed: int, *, sampled: bool) -> Iterator[Create]:
    """The trials that a seed makes, in their order; without hyperparameters where those are laid out and not `sampled`."""
    random, number = Random(seed), 0
    while True:
        chosen = hyperparameters.sample(hparams, random) if sampled else {}
        for _ in range(4):
            random.bits()  # the engine draws a request's UUID here
        yield Create(number, random.below(2**31), chosen)
        number += 1


class Searcher:
    """One experiment's search.

    Args:
        searcher: the config's section, complete.
        hparams: the config's hyperparameters.
        seed: the experiment's.
        state: what `state` was after the last event; None before `begin`.
    """

    def __init__(self, searcher: Mapping[str, Any], hparams: Mapping[str, Any], seed: int, state: dict[str, Any] | None = None) -> None:
        self.searcher, self.hparams, self.seed = searcher, hparams, seed
        self.name = str(searcher["name"])
        self.state: dict[str, Any] = state or {"created": 0, "replaced": 0, "closed": [], "failed": 0, "canceled": 0, "brackets": []}
        self.brackets: list[Bracket] = []
        if self.name == "adaptive_asha":
            self.brackets = adaptive_brackets(searcher)
        elif self.name == "async_halving":
            count, trials = int(searcher["num_rungs"]), int(searcher["max_trials"])
            self.brackets = [asha_bracket(searcher, count, trials, int(searcher["max_concurrent_trials"]))]
        if not self.state["brackets"]:
            self.state["brackets"] = [
                {"rungs": [[] for _ in bracket.rungs], "at": {}, "invalid": 0, "closed": 0} for bracket in self.brackets
            ]

    # events

    def begin(self) -> list[Action]:
        """The first trials."""
        if self.brackets:
            return [create for place, bracket in enumerate(self.brackets) for create in self._create(bracket.concurrent, place)]
        return list(self._create(min(self._planned(), self._at_once())))

    def reopen(self, numbers: Collection[int]) -> list[Action]:
        """Trials that had ended run again, with others that the search had not come to. Searchers with rungs cannot do it."""
        self.state["closed"] = [number for number in self.state["closed"] if number not in numbers]
        self.state["failed"] = self.state["canceled"] = 0
        missing = self._planned() - (self.state["created"] - self.state["replaced"])
        return list(self._create(max(0, min(missing, self._at_once() - len(numbers)))))

    def validated(self, number: int, metrics: Mapping[str, Any]) -> list[Action]:
        """A trial reported validation metrics.

        Raises:
            UserError: they do not hold what the searcher looks at.
        """
        if not self.brackets:
            return []
        place = self._place(number)
        at, value = self._measured(metrics)
        if not self._falls_behind(place, number, at, value):
            return []
        return [Stop(number), *self._one_more(place)]

    def exited(self, number: int, early: str = "") -> list[Action]:
        """A trial has ended, for good; `early` says how if not by itself or by this searcher."""
        self.state["closed"].append(number)
        self.state["failed"] += early == ERRORED
        self.state["canceled"] += early == CANCELED
        if self.brackets:
            return self._exited_asha(number, early)
        if early == INVALID and self.name == "random":
            self.state["replaced"] += 1
        if self.state["created"] - self.state["replaced"] < self._planned():
            return list(self._create(1))
        return []

    @property
    def verdict(self) -> str:
        """What the search has come to; empty while trials are open."""
        created = self.state["created"]
        if len(self.state["closed"]) < created:
            return ""
        if self.state["failed"] >= created:
            return "ERROR"
        return "CANCELED" if self.state["canceled"] >= created else "COMPLETED"

    def progress(self, trained: Mapping[int, float]) -> float:
        """How far the search is, from 0 to 1; `trained` is how far its trials are."""
        if not self.brackets:
            closed = set(self.state["closed"])
            done = sum(1.0 if number in closed else share for number, share in trained.items())
            return min(1.0, done / max(1, self._planned()))
        shares = []
        for bracket, state in zip(self.brackets, self.state["brackets"], strict=True):
            ranked = len(state["rungs"][0])
            share = ranked / (1.2 * bracket.trials)
            if ranked == bracket.trials:
                share = max(share, (state["closed"] - state["invalid"]) / bracket.trials)
            shares.append(share)
        return min(1.0, sum(shares) / len(shares))

    # random, grid, single

    def _planned(self) -> int:
        """How many trials there are to be."""
        if self.name == "grid":
            return hyperparameters.grid_size(self.hparams)
        return 1 if self.name == "single" else int(self.searcher["max_trials"])

    def _at_once(self) -> int:
        """How many may run together."""
        return int(self.searcher.get("max_concurrent_trials") or 0) or self._planned()

    def _create(self, count: int, place: int | None = None) -> Iterator[Create]:
        """The next trials, of a bracket."""
        made = draws(self.hparams, self.seed, sampled=self.name != "grid")
        points = hyperparameters.grid(self.hparams) if self.name == "grid" else []
        for create in made:
            if create.number < self.state["created"]:
                continue
            if count == 0:
                return
            count -= 1
            self.state["created"] += 1
            if place is not None:
                self.state["brackets"][place]["at"][str(create.number)] = 0
            # the engine takes the last point first
            yield Create(create.number, create.seed, points[-1 - create.number]) if points else create

    # asha

    def _place(self, number: int) -> int:
        """The bracket of a trial."""
        return next(place for place, state in enumerate(self.state["brackets"]) if str(number) in state["at"])

    def _measured(self, metrics: Mapping[str, Any]) -> tuple[float, float]:
        """How long a trial had trained, and its metric, turned so that less is better."""
        found = []
        for key, what in ((str(self.searcher["time_metric"]), "searcher.time_metric"), (str(self.searcher["metric"]), "searcher.metric")):
            value = _number(metrics, key)
            if value is None:
                have = ", ".join(sorted(metrics)) or "nothing"
                raise UserError(f"the validation metrics hold no number {key!r}, which {what} names; they hold {have}")
            found.append(value)
        at, value = found
        if math.isnan(value):
            return at, WORST
        return at, value if self.searcher["smaller_is_better"] else -value

    def _falls_behind(self, place: int, number: int, at: float, value: float) -> bool:
        """Rank a trial on every rung that it has reached; whether it is to stop there."""
        bracket, state = self.brackets[place], self.state["brackets"][place]
        for rung in range(state["at"][str(number)], len(bracket.rungs)):
            state["at"][str(number)] = rung
            if at < bracket.rungs[rung]:
                return False
            ranked = state["rungs"][rung]
            rank = _insert(ranked, value, number)
            if rung == len(bracket.rungs) - 1 or rank >= max(int(len(ranked) / float(self.searcher["divisor"])), 1):
                return True
        return False

    def _one_more(self, place: int) -> list[Action]:
        state = self.state["brackets"][place]
        if len(state["at"]) - state["invalid"] < self.brackets[place].trials:
            return list(self._create(1, place))
        return []

    def _exited_asha(self, number: int, early: str) -> list[Action]:
        place = self._place(number)
        state = self.state["brackets"][place]
        state["closed"] += 1
        if early == INVALID:
            state["invalid"] += 1
            for ranked in state["rungs"]:
                ranked[:] = [entry for entry in ranked if entry[1] != number]
            return list(self._create(1, place))
        if not early:
            return []
        _insert(state["rungs"][state["at"][str(number)]], WORST, number)
        return self._one_more(place)


def _insert(ranked: list[list[float]], value: float, number: int) -> int:
    """Put a metric into its place on a rung; its rank, before those that are equal."""
    rank = bisect_left([entry[0] for entry in ranked], value)
    ranked.insert(rank, [value, number])
    return rank
