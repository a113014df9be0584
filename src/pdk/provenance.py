"""Where a model version comes from: what the train step registers, an archive carries, every answer names, and `pdk trace` follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

P = TypeVar("P")


@dataclass(frozen=True)
class Data:
    """A data commit; `content` is the hash of all that it holds."""

    project: str
    repo: str
    commit: str
    content: str = ""


@dataclass(frozen=True)
class Code:
    """A folder of a commit of a git repository."""

    url: str
    sha: str
    folder: str = ""


@dataclass(frozen=True)
class ConfigFile:
    """An experiment's config: its file in the folder of the code, and its hash without what is filled in at run time."""

    file: str
    hash: str


@dataclass(frozen=True)
class JobRef:
    """A job of a pipeline."""

    project: str
    pipeline: str
    id: str


@dataclass(frozen=True)
class ParentVersion:
    """The version that an incremental run went on from, and the data commit that it was trained on."""

    version: str
    commit: str


@dataclass(frozen=True)
class Provenance:
    """The origin of a model version.

    In a registry it is the version's metadata, in an archive ``provenance.json``, in both in the form of `to_json`. With every answer a
    runtime sends what is known of it: ``pdk-data-repo`` and ``pdk-data-commit`` (of `data`) and ``pdk-code-sha`` (of `code`), beside
    ``pdk-model`` and ``pdk-model-version``.

    Args:
        experiment: number of the Determined experiment.
        mode: ``full``, or ``incremental`` where it went on from `parent`.
        metrics: validation metrics of the checkpoint.
        reused: name of the version whose checkpoint this is, where nothing was trained.
    """

    data: Data | None = None
    code: Code | None = None
    config: ConfigFile | None = None
    experiment: int | None = None
    job: JobRef | None = None
    mode: str = ""
    parent: ParentVersion | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; `from_json` reads it back."""
        made = asdict(self)
        return {key: value for key, value in made.items() if key not in ("metrics", "reused") or value}

    @classmethod
    def from_json(cls, content: object) -> Provenance:
        """Read what `to_json` made. Anybody may have written it: what is not of its form is unknown, not an error."""
        given = content if isinstance(content, Mapping) else {}
        experiment, metrics = given.get("experiment"), given.get("metrics")
        return cls(
            data=_read(Data, given.get("data")),
            code=_read(Code, given.get("code")),
            config=_read(ConfigFile, given.get("config")),
            experiment=experiment if isinstance(experiment, int) else None,
            job=_read(JobRef, given.get("job")),
            mode=str(given.get("mode") or ""),
            parent=_read(ParentVersion, given.get("parent")),
            metrics=numbers_of(metrics),
            reused=str(given.get("reused") or ""),
        )

    def origin(self) -> dict[str, Any]:
        """Return what decides what comes out of a training, as JSON: data, code and config."""
        made = self.to_json()
        return {key: made[key] for key in ("data", "code", "config")}

    def headers(self) -> dict[str, str]:
        """Return what an answer says of it, by header."""
        named = {
            "pdk-data-repo": self.data and self.data.repo,
            "pdk-data-commit": self.data and self.data.commit,
            "pdk-code-sha": self.code and self.code.sha,
        }
        return {key: value for key, value in named.items() if value}


def numbers_of(values: object) -> dict[str, float]:
    """Return the entries of a mapping that are numbers."""
    found = values if isinstance(values, Mapping) else {}
    return {str(key): value for key, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _read(kind: type[P], value: object) -> P | None:
    """Read one of the parts, all of text."""
    if not isinstance(value, Mapping):
        return None
    return kind(**{entry.name: str(value.get(entry.name) or "") for entry in fields(kind)})  # type: ignore[arg-type]
