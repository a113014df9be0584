"""The searcher ``random``: so many trials with samples of the hyperparameters."""

from __future__ import annotations

from typing import ClassVar

from pdk.local.determined.rules.fields import WHOLE, Field
from pdk.local.determined.rules.searchers.base import AT_ONCE, COMMON, INVALID, Action, Counted


class Random(Counted):
    """So many trials, each with a sample; one that finds its sample invalid does not count."""

    name = "random"
    fields: ClassVar = {**COMMON, **AT_ONCE, "max_trials": Field(WHOLE, low=1)}
    required = ("max_trials",)

    def planned(self) -> int:
        """Return what the config says."""
        return int(self.section["max_trials"])

    def _exited(self, number: int, early: str) -> list[Action]:
        if early == INVALID:
            self.state["replaced"] += 1
        return super()._exited(number, early)
