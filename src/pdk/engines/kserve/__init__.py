"""Kubernetes with KServe: its calls, by what they are about; the client's errors stop here."""

from __future__ import annotations

from pdk.engines.kserve.cluster import Cluster
from pdk.engines.kserve.services import Services

__all__ = ["KServe"]


class KServe(Services, Cluster):
    """One Kubernetes with KServe, with all its calls."""
