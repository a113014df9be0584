"""The searchers ``async_halving`` and ``adaptive_asha``: trials are ranked while they train, and those that fall behind are stopped.

As in Determined 0.38 (its master's pkg/searcher and the ASHA paper, Li et al., arXiv 1810.05934): a trial reports validations whenever it
likes; asha ranks them on *rungs* of training time and stops a trial that is not among the best 1/divisor of its rung.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pdk.errors import UserError
from pdk.local.determined.rules.fields import LIST, NUMBER, TEXT, WHOLE, Field
from pdk.local.determined.rules.searchers.base import AT_ONCE, COMMON, INVALID, WORST, Action, Create, Searcher, Stop, number_of


@dataclass(frozen=True)
class Bracket:
    """One asha search: so many trials, ranked on these rungs (each a length of training), at most so many at a time."""

    rungs: tuple[int, ...]
    trials: int
    concurrent: int


def rungs(count: int, divisor: float, length: int) -> tuple[int, ...]:
    """Return the lengths of training at which trials are ranked: the longest is `length`, each one before it `divisor` times shorter."""
    return tuple(max(int(length / divisor ** (count - number - 1)), 1) for number in range(count))


def asha_bracket(searcher: Mapping[str, Any], count: int, trials: int, concurrent: int) -> Bracket:
    """Return the bracket of an asha search; without a limit, as many trials at a time as let one reach the top rung."""
    divisor = float(searcher["divisor"])
    at_once = min(concurrent, trials) if concurrent > 0 else max(1, min(int(divisor ** (count - 1)), trials))
    return Bracket(rungs(count, divisor, int(searcher["max_time"])), trials, at_once)


MODES: dict[str, Callable[[int], list[int]]] = {
    "aggressive": lambda most: [most],
    "standard": lambda most: list(range((most - 1) // 2 + 1, most + 1)),
    "conservative": lambda most: list(range(1, most + 1)),
}


def adaptive_brackets(searcher: Mapping[str, Any]) -> list[Bracket]:
    """Return the brackets of adaptive_asha: several asha searches that stop more or less eagerly, with about equal training in each."""
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


STOPPING: Mapping[str, Field] = {
    **COMMON,
    **AT_ONCE,
    "max_trials": Field(WHOLE, low=1),
    "divisor": Field(NUMBER, 4, low=math.nextafter(1, 2)),
    "max_time": Field(WHOLE, low=1),
    "time_metric": Field(TEXT),
}


class Asha(Searcher):
    """Searches with rungs, in one or more brackets."""

    def __init__(self, section: Mapping[str, Any], hparams: Mapping[str, Any], seed: int, state: dict[str, Any] | None = None) -> None:
        super().__init__(section, hparams, seed, state)
        self.brackets = self._brackets()
        if not self.state["brackets"]:
            self.state["brackets"] = [
                {"rungs": [[] for _ in bracket.rungs], "at": {}, "invalid": 0, "closed": 0} for bracket in self.brackets
            ]

    @abstractmethod
    def _brackets(self) -> list[Bracket]:
        """Return the brackets that the config makes."""

    def begin(self) -> list[Action]:
        """Return the first trials of each bracket."""
        return [create for place, bracket in enumerate(self.brackets) for create in self._create_in(place, bracket.concurrent)]

    def validated(self, number: int, metrics: Mapping[str, Any]) -> list[Action]:
        """Return the stop of a trial that falls behind, or has trained long enough, and the next trial of its bracket."""
        place = self._place(number)
        at, value = self._measured(metrics)
        if not self._falls_behind(place, number, at, value):
            return []
        return [Stop(number), *self._one_more(place)]

    def progress(self, trained: Mapping[int, float]) -> float:
        """Return the mean of the brackets' shares."""
        del trained
        shares = []
        for bracket, state in zip(self.brackets, self.state["brackets"], strict=True):
            ranked = len(state["rungs"][0])
            share = ranked / (1.2 * bracket.trials)
            if ranked == bracket.trials:
                share = max(share, (state["closed"] - state["invalid"]) / bracket.trials)
            shares.append(share)
        return min(1.0, sum(shares) / len(shares))

    def _create_in(self, place: int, count: int) -> Iterator[Create]:
        """Make the next trials of a bracket."""
        for create in self._create(count):
            self.state["brackets"][place]["at"][str(create.number)] = 0
            yield create

    def _place(self, number: int) -> int:
        """Return the bracket of a trial."""
        return next(place for place, state in enumerate(self.state["brackets"]) if str(number) in state["at"])

    def _measured(self, metrics: Mapping[str, Any]) -> tuple[float, float]:
        """Return how long a trial had trained, and its metric, turned so that less is better."""
        found = []
        for key, what in ((str(self.section["time_metric"]), "searcher.time_metric"), (str(self.section["metric"]), "searcher.metric")):
            value = number_of(metrics, key)
            if value is None:
                have = ", ".join(sorted(metrics)) or "nothing"
                raise UserError(f"the validation metrics hold no number {key!r}, which {what} names; they hold {have}")
            found.append(value)
        at, value = found
        if math.isnan(value):
            return at, WORST
        return at, value if self.section["smaller_is_better"] else -value

    def _falls_behind(self, place: int, number: int, at: float, value: float) -> bool:
        """Rank a trial on every rung that it has reached; whether it is to stop there."""
        bracket, state = self.brackets[place], self.state["brackets"][place]
        for rung in range(state["at"][str(number)], len(bracket.rungs)):
            state["at"][str(number)] = rung
            if at < bracket.rungs[rung]:
                return False
            ranked = state["rungs"][rung]
            rank = _insert(ranked, value, number)
            if rung == len(bracket.rungs) - 1 or rank >= max(int(len(ranked) / float(self.section["divisor"])), 1):
                return True
        return False

    def _one_more(self, place: int) -> list[Action]:
        state = self.state["brackets"][place]
        if len(state["at"]) - state["invalid"] < self.brackets[place].trials:
            return list(self._create_in(place, 1))
        return []

    def _exited(self, number: int, early: str) -> list[Action]:
        place = self._place(number)
        state = self.state["brackets"][place]
        state["closed"] += 1
        if early == INVALID:
            state["invalid"] += 1
            for ranked in state["rungs"]:
                ranked[:] = [entry for entry in ranked if entry[1] != number]
            return list(self._create_in(place, 1))
        if not early:
            return []
        _insert(state["rungs"][state["at"][str(number)]], WORST, number)
        return self._one_more(place)


class AsyncHalving(Asha):
    """One bracket, with as many rungs as the config says."""

    name = "async_halving"
    fields: ClassVar = {**STOPPING, "num_rungs": Field(WHOLE, low=1)}
    required = ("max_trials", "num_rungs", "max_time", "time_metric")

    def _brackets(self) -> list[Bracket]:
        count, trials = int(self.section["num_rungs"]), int(self.section["max_trials"])
        return [asha_bracket(self.section, count, trials, int(self.section["max_concurrent_trials"]))]


class AdaptiveAsha(Asha):
    """Several brackets, which stop more or less eagerly."""

    name = "adaptive_asha"
    fields: ClassVar = {
        **STOPPING,
        "bracket_rungs": Field(LIST, []),
        "mode": Field(default="standard", choices=tuple(MODES)),
        "max_rungs": Field(WHOLE, 5, low=1),
    }
    required = ("max_trials", "max_time", "time_metric")

    def _brackets(self) -> list[Bracket]:
        return adaptive_brackets(self.section)


def _insert(ranked: list[list[float]], value: float, number: int) -> int:
    """Put a metric into its place on a rung; its rank, before those that are equal."""
    rank = bisect_left([entry[0] for entry in ranked], value)
    ranked.insert(rank, [value, number])
    return rank
