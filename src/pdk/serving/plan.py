"""What a worker process is told by the supervisor, as one argument in JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Plan:
    """One worker's work.

    Args:
        store: the model store, or the archive alone.
        archive: the archive that it serves.
        listen: file descriptor of the socket that it accepts on, shared with the model's other workers.
        report: file descriptor of a stream socket: the worker says on it that it answers, and ends when the supervisor's end closes.
        scratch: an empty folder to unpack into; the supervisor removes it, whatever becomes of the worker.
        grpc: ``HOST:PORT`` of the V2 protocol over gRPC; empty where it is not asked for.
        threads: of torch.
        request_log: folder of the request log; empty: none.
        request_log_sample: share of requests whose bodies are kept.
        request_log_hours: how long they are kept.
    """

    store: str
    archive: str
    listen: int
    report: int
    scratch: str = ""
    grpc: str = ""
    threads: int = 1
    request_log: str = ""
    request_log_sample: float = 0.0
    request_log_hours: float = 168.0

    def to_json(self) -> str:
        """As the argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Out of the argument."""
        return cls(**json.loads(text))
