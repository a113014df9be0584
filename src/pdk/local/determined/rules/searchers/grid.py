"""The searcher ``grid``: a trial for every point of a grid."""

from __future__ import annotations

from typing import ClassVar

from pdk.local.determined.rules import hyperparameters
from pdk.local.determined.rules.searchers.base import AT_ONCE, COMMON, Counted


class Grid(Counted):
    """A trial for every combination of the axes' values."""

    name = "grid"
    fields: ClassVar = {**COMMON, **AT_ONCE}
    lays_out = True

    def planned(self) -> int:
        """Return the number of points."""
        return hyperparameters.grid_size(self.hparams)
