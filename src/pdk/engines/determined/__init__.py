"""Determined's calls, by what they are about; they answer with `pdk.engines.records`, and the SDK's errors stop here."""

from __future__ import annotations

from pdk.engines.determined.experiments import Experiments
from pdk.engines.determined.registry import Registry

__all__ = ["Determined"]


class Determined(Experiments, Registry):
    """One Determined, with all its calls."""
