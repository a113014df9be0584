"""Pachyderm's calls, by what they are about; they answer with `pdk.engines.records`, and the SDK's errors stop here."""

from __future__ import annotations

from pdk.engines.pachyderm.files import Files
from pdk.engines.pachyderm.pipelines import Pipelines
from pdk.engines.pachyderm.repos import Repos

__all__ = ["Pachyderm"]


class Pachyderm(Repos, Files, Pipelines):
    """One Pachyderm, with all its calls."""
