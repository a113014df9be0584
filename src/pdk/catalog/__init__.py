"""One question, one answer, for every face: the engines' nouns, a run from commit to prediction, and the cause of what is red.

It asks by the engines' own protocols, so it works on real ones as on those of `pdk up`, and it keeps nothing.
"""

from __future__ import annotations

from pdk.catalog.catalog import Catalog
from pdk.catalog.causes import Cause, Differences
from pdk.catalog.engines import Engines, engines_of
from pdk.catalog.paging import Collection, Event, Page
from pdk.catalog.runs import Run, Step

__all__ = ["Catalog", "Cause", "Collection", "Differences", "Engines", "Event", "Page", "Run", "Step", "engines_of"]
