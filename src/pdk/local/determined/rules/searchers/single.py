"""The searcher ``single``: one trial."""

from __future__ import annotations

from pdk.local.determined.rules.searchers.base import Counted


class Single(Counted):
    """One trial with one sample of the hyperparameters."""

    name = "single"
    one_trial = True

    def planned(self) -> int:
        """Return one."""
        return 1
