"""Searchers: which trials an experiment makes, and which of them it stops early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdk.errors import UserError
from pdk.local.determined.rules.searchers.asha import AdaptiveAsha, AsyncHalving
from pdk.local.determined.rules.searchers.base import CANCELED, ERRORED, INVALID, Action, Counted, Create, Searcher, Stop, draws, number_of
from pdk.local.determined.rules.searchers.grid import Grid
from pdk.local.determined.rules.searchers.random import Random
from pdk.local.determined.rules.searchers.single import Single

__all__ = [
    "CANCELED",
    "ERRORED",
    "INVALID",
    "SEARCHERS",
    "Action",
    "Counted",
    "Create",
    "Searcher",
    "Stop",
    "draws",
    "kind_of",
    "make",
    "number_of",
]

SEARCHERS: Mapping[str, type[Searcher]] = {kind.name: kind for kind in (Single, Random, Grid, AsyncHalving, AdaptiveAsha)}


def kind_of(name: object) -> type[Searcher]:
    """Return the searcher with a name.

    Raises:
        UserError: there is none.
    """
    if name not in SEARCHERS:
        raise UserError(f"there is no searcher {name!r}; known are {', '.join(sorted(SEARCHERS))}")
    return SEARCHERS[str(name)]


def make(section: Mapping[str, Any], hparams: Mapping[str, Any], seed: int, state: dict[str, Any] | None = None) -> Searcher:
    """Return an experiment's searcher; arguments as those of `Searcher`.

    Raises:
        UserError: there is none of that name.
    """
    return kind_of(section["name"])(section, hparams, seed, state)
