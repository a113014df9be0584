"""The request log: a JSON object a line for every answered request, in the installation's files or in what pods have printed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pdk.engines.records import Request


def lines_of(folder: Path) -> Iterable[str]:
    """Give the lines of all request logs below a folder, newest first; of the files of one hour, one after the other."""
    for path in sorted(folder.rglob("*.jsonl"), key=lambda path: path.name, reverse=True):
        yield from reversed(path.read_text().splitlines())  # of an hour and one replica


def read(lines: Iterable[str]) -> Iterator[Request]:
    """Give the requests of a log; what is no line of it (pods print other things too) is passed over."""
    for line in lines:
        try:
            entry = json.loads(line)
            yield Request(
                id=str(entry["x-request-id"]),
                time=str(entry.get("time") or ""),
                model=str(entry["pdk-model"]),
                version=str(entry["pdk-model-version"]),
                protocol=str(entry.get("protocol") or ""),
                code=int(entry.get("code") or 0),
                ms=float(entry.get("ms") or 0),
                data_repo=str(entry.get("pdk-data-repo") or ""),
                data_commit=str(entry.get("pdk-data-commit") or ""),
                code_sha=str(entry.get("pdk-code-sha") or ""),
                bodies={key: entry[key] for key in ("request", "response") if key in entry},
            )
        except (ValueError, KeyError, TypeError):
            continue


def counted(lines: Iterable[str]) -> Counter[tuple[str, str]]:
    """Count the requests that each model and version answered, of those in the log."""
    return Counter((request.model, request.version) for request in read(lines))
