"""PDK: a data commit becomes a prediction endpoint."""

__version__ = "0.1.0"
