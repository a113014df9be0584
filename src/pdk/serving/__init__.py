"""The runtime that serves a model archive: loads its handler, answers V1, and V2 over HTTP and gRPC."""
