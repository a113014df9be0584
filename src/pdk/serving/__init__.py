"""The runtime that serves a model archive: loads its handler, answers the V1 protocol."""
