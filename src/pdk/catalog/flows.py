"""The flows of a project: which pipelines train, which deploy, and what feeds what; read off their specs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pdk.engines.records import Pipeline

PROGRAMS = {"train.py": "train", "deploy.py": "deploy"}


def role_of(spec: Mapping[str, Any]) -> str:
    """Return ``train`` or ``deploy`` for a pipeline that runs that step's program, else ''."""
    transform = spec.get("transform") or {}
    words = " ".join([*map(str, transform.get("cmd") or ()), *map(str, transform.get("stdin") or ())]).split()
    return next((PROGRAMS[name] for word in words if (name := PurePosixPath(word.strip("\"'")).name) in PROGRAMS), "")


def repos_of(source: object) -> Iterator[str]:
    """Give the names of the repos that a pipeline's input reads, joins and groups included."""
    if isinstance(source, Mapping):
        pfs = source.get("pfs")
        if isinstance(pfs, Mapping) and pfs.get("repo"):
            yield str(pfs["repo"])
        for part in source.values():
            yield from repos_of(part)
    elif isinstance(source, list):
        for part in source:
            yield from repos_of(part)


@dataclass(frozen=True)
class Flows:
    """The pipelines of a project as a graph.

    Attributes:
        roles: pipeline → ``train``, ``deploy`` or ''.
        inputs: pipeline → the repos that it reads; the output repo of a pipeline has its name.
    """

    roles: Mapping[str, str]
    inputs: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, pipelines: Iterable[Pipeline]) -> Flows:
        """Read the pipelines' specs."""
        specs = {pipeline.name: pipeline.spec or {} for pipeline in pipelines}
        return cls(
            {name: role_of(spec) for name, spec in specs.items()},
            {name: tuple(dict.fromkeys(repos_of(spec.get("input")))) for name, spec in specs.items()},
        )

    def trains(self) -> list[str]:
        """List the pipelines that train."""
        return [name for name, role in self.roles.items() if role == "train"]

    def upstream(self, pipeline: str) -> list[str]:
        """List what a pipeline's data comes through, itself included: repos and pipelines, each after all that feed it."""
        found: dict[str, None] = {}

        def visit(name: str, below: frozenset[str]) -> None:
            for source in self.inputs.get(name, ()):
                if source not in found and source not in below:
                    visit(source, below | {name})
            found[name] = None

        visit(pipeline, frozenset())
        return list(found)

    def sources(self, pipeline: str) -> list[str]:
        """List the repos that a pipeline's data comes from in the end: those that no pipeline writes."""
        return [name for name in self.upstream(pipeline) if name not in self.inputs]

    def deploys(self, pipeline: str) -> list[str]:
        """List the pipelines that deploy what one trains."""
        return [name for name, role in self.roles.items() if role == "deploy" and pipeline in self.upstream(name)]
