"""Which requests a model answered: one JSON line each, with the bodies of some of them; kept for a while.

The lines are what ``pdk trace REQUEST_ID`` looks for. They go to files that are named by their hour, or, on a cluster, to the
process's own log. Writing happens four times a second in a thread; what was answered since is lost with a killed process.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
FLUSH_S = 0.25  # between two writes of the request log
EXPIRE_S = 600.0  # between two looks for files that are too old
WAITING = 100_000  # lines that wait to be written; more are dropped, oldest first, or memory would grow without bound
SHOWN = 64 << 10  # bytes of a body that are kept
PRINTED = Path("-")
NAMED = "%Y%m%dT%H"


class RequestLog:
    """Takes notes of requests.

    Args:
        folder: where the files are; ``-`` prints the lines instead, without it there are none.
        sample: the share of requests whose bodies are kept, 0 to 1.
        keep_h: hours after which a file is removed.
    """

    def __init__(self, folder: Path | None, sample: float = 0.0, keep_h: float = 168.0) -> None:
        self.folder, self.sample, self.keep = folder, sample, timedelta(hours=keep_h)
        self._lines: deque[tuple[Any, ...]] = deque(maxlen=WAITING)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)
        if folder is not None:
            self._thread.start()

    def note(self, headers: Mapping[str, str], protocol: str, code: int, seconds: float, body: bytes, answer: bytes) -> None:
        """Remember a request: its headers as answered, how it went, and what was asked and answered."""
        if self.folder is not None:
            kept = self.sample > 0 and random.random() < self.sample  # noqa: S311 - a sample, not a secret
            self._lines.append(
                (time.time(), headers, protocol, code, seconds, *((body[:SHOWN], len(body), answer[:SHOWN], len(answer)) if kept else ()))
            )

    def close(self) -> None:
        """Write what is left."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _work(self) -> None:
        looked = 0.0
        while not self._closed.wait(FLUSH_S):
            self._flush()
            if self.folder != PRINTED and time.monotonic() - looked > EXPIRE_S:
                looked = time.monotonic()
                self._expire(datetime.now(UTC))
        self._flush()

    def _flush(self) -> None:
        lines = [self._line(*self._lines.popleft()) for _ in range(len(self._lines))]
        if not lines or self.folder is None:
            return
        if self.folder == PRINTED:
            print("\n".join(lines), flush=True)
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{datetime.now(UTC):{NAMED}}-{os.getpid()}.jsonl").open("a") as file:
                file.write("".join(f"{line}\n" for line in lines))
        except OSError as error:
            log.warning("%d requests could not be noted: %s", len(lines), error)

    @staticmethod
    def _line(at: float, headers: Mapping[str, str], protocol: str, code: int, seconds: float, *bodies: Any) -> str:
        said: dict[str, Any] = {"time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"), **headers}
        said |= {"protocol": protocol, "code": code, "ms": round(seconds * 1000, 2)}
        for name, content, size in zip(("request", "response"), bodies[::2], bodies[1::2], strict=False):
            said[name] = content.decode(errors="replace")
            if size > SHOWN:
                said[f"{name}_bytes"] = size
        return json.dumps(said, ensure_ascii=False)

    def _expire(self, now: datetime) -> None:
        assert self.folder is not None
        oldest = (now - self.keep).strftime(NAMED)
        for path in self.folder.glob("*.jsonl"):
            if path.name < oldest:
                path.unlink(missing_ok=True)
