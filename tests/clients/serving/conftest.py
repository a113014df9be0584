"""A runtime of its own for a test of the serving runtime."""

from clients.serving.runtime import start  # noqa: F401 - a fixture
