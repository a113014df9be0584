"""One InferenceService for a test of the local KServe server."""

from clients.kserve.services import service  # noqa: F401 - a fixture
