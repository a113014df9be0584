"""The chain from a prediction to the data that its model learned from, and from data to predictions: what ``pdk trace`` shows.

Nothing is kept for it: requests are in the request log, versions with their provenance in Determined's registry, what serves in the
annotations of InferenceServices, and pictures in the data commit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdk.errors import NotFound, PdkError
from pdk.provenance import Data
from pdk.words import MODEL_VERSION

if TYPE_CHECKING:
    from pdk.engines.determined import Determined, Version
    from pdk.engines.kserve import KServe
    from pdk.engines.versioned import Versioned

Node = dict[str, Any]
SHOWN = 10  # files of a commit that are named


@dataclass(frozen=True)
class Engines:
    """Whom to ask."""

    pachyderm: Versioned
    determined: Determined
    kserve: KServe


def lines_of(folder: Path) -> Iterable[str]:
    """The lines of all request logs below a folder, newest files first."""
    for path in sorted(folder.rglob("*.jsonl"), key=lambda path: path.name, reverse=True):
        with path.open() as file:
            yield from file


def request(identifier: str, lines: Iterable[str]) -> Node | None:
    """What the request log says of a request; None where it says nothing."""
    for line in lines:
        if identifier in line:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("x-request-id") == identifier:
                return entry
    return None


def counted(lines: Iterable[str]) -> Counter[tuple[str, str]]:
    """How many requests each model and version answered, of those in the log."""
    found = Counter[tuple[str, str]]()
    for line in lines:
        try:
            entry = json.loads(line)
            found[entry["pdk-model"], entry["pdk-model-version"]] += 1
        except (ValueError, KeyError, TypeError):
            continue
    return found


class Trace:
    """Looks things up, both ways."""

    def __init__(self, engines: Engines, answered: Mapping[tuple[str, str], int]) -> None:
        self.engines, self.answered = engines, answered

    def version(self, model: str, version: Version) -> Node:
        """A model version: what it learned from, and where it serves."""
        known = version.provenance
        code = known.code
        return {
            "model": model,
            "version": version.name,
            "checkpoint": version.checkpoint,
            "experiment": known.experiment,
            "mode": known.mode or None,
            "parent": known.parent and known.parent.version,
            "job": known.job and asdict(known.job),
            "code": asdict(code) if code else {},
            "data": self.data(known.data) if known.data else None,
            "services": self.services(version.name),
            "predictions": self.answered.get((model, version.name), 0),
        }

    def data(self, data: Data) -> Node:
        """A data commit: its files."""
        made: Node = asdict(data)
        try:
            rows = self.engines.pachyderm.glob(data.project, f"{data.repo}@{data.commit}:/**")
            files = [str(row["path"]) for row in rows if row.get("type") != "dir" and not str(row["path"]).endswith("/")]
        except PdkError as error:
            return {**made, "files": f"cannot be listed: {error}"}
        return {
            **made,
            "count": len(files),
            "files": [*files[:SHOWN], *([f"… and {len(files) - SHOWN:,} more"] if len(files) > SHOWN else [])],
        }

    def services(self, version: str) -> list[Node]:
        """The InferenceServices that serve a version."""
        found = []
        for body in self.engines.kserve.services():
            meta = body["metadata"]
            if (meta.get("annotations") or {}).get(MODEL_VERSION) == version:
                found.append({"service": f"{meta['namespace']}/{meta['name']}", "url": (body.get("status") or {}).get("url")})
        return found

    def request(self, entry: Mapping[str, Any]) -> Node:
        """A prediction: its model version, and so on."""
        model, name = str(entry["pdk-model"]), str(entry["pdk-model-version"])
        made = {
            "request": {
                key: entry[key] for key in ("x-request-id", "time", "protocol", "code", "ms", "request", "response") if key in entry
            }
        }
        for version in self.engines.determined.versions(model):
            if version.name == name:
                return {**made, **self.version(model, version)}
        data = Data("default", str(entry.get("pdk-data-repo") or ""), str(entry.get("pdk-data-commit") or ""))
        unregistered: Node = {"model": model, "version": name, "code": {"sha": entry.get("pdk-code-sha")}}
        return {**made, **unregistered, "data": self.data(data) if data.commit else None}

    def model(self, name: str, wanted: str = "") -> list[Node]:
        """A model's versions, or one of them."""
        return [self.version(name, version) for version in self.engines.determined.versions(name) if wanted in ("", version.name)]

    def commit(self, identifier: str) -> list[Node]:
        """The versions that were trained on a commit."""
        found = []
        for model in self.engines.determined.models():
            for version in self.engines.determined.versions(model):
                if identifier in (version.provenance.data and version.provenance.data.commit, version.name):
                    found.append(self.version(model, version))
        return found

    def find(self, what: str, lines: Callable[[], Iterable[str]]) -> Sequence[Node]:
        """Whatever `what` names: a request, a model, MODEL@VERSION, or a commit.

        Raises:
            NotFound: it names nothing that is known.
        """
        model, _, version = what.partition("@")
        if found := self.model(model, version):
            return found
        if found := self.commit(what):
            return found
        if (entry := request(what, lines())) is not None:
            return [self.request(entry)]
        raise NotFound(f"{what!r} is no request in the log, no model or version in the registry, and no commit that a model learned from")
