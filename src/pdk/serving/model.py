"""A model store on disk, in TorchServe's layout: ``model-store/*.mar`` and ``config/config.properties``; and one model in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pdk.errors import UserError
from pdk.mar import Archive, Manifest
from pdk.mar.format import PROVENANCE
from pdk.serving import handlers


class NoMetrics:
    """Takes the metrics that TorchServe's handlers report, whatever they are called; the runtime has its own."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


@dataclass
class Context:
    """What a handler is given, as TorchServe gives it."""

    model_name: str
    model_dir: str
    manifest: dict[str, Any]
    gpu_id: int | None = None
    batch_size: int = 1
    metrics: Any = field(default_factory=NoMetrics)
    request_ids: dict[int, str] = field(default_factory=dict)
    model_yaml_config: dict[str, Any] = field(default_factory=dict)

    @property
    def system_properties(self) -> dict[str, Any]:
        """As TorchServe's."""
        return {
            "model_dir": self.model_dir,
            "gpu_id": self.gpu_id,
            "batch_size": self.batch_size,
            "server_name": "pdk",
            "server_version": "1",
        }

    def get_request_id(self, index: int = 0) -> str | None:
        """The ID of a request of the batch."""
        return self.request_ids.get(index)


@dataclass(frozen=True)
class Settings:
    """How a model wants to be served: instances answered together, how long the first of them waits, how long an answer may take."""

    batch_size: int = 1
    batch_delay_s: float = 0.1
    timeout_s: float = 120.0
    content: dict[str, Any] = field(default_factory=dict)


def settings_of(store: Path, folder: Path, manifest: Manifest) -> Settings:
    """Those of the archive's ``model-config.yaml``, and over them those of the store's ``config.properties``.

    Raises:
        UserError: one of them cannot be read, or holds what is no number.
    """
    found: dict[str, Any] = {}
    for name in filter(None, (manifest.config_file, "model-config.yaml")):
        if (folder / name).is_file():
            try:
                found = dict(yaml.safe_load((folder / name).read_text()) or {})
            except (yaml.YAMLError, ValueError, TypeError) as error:
                raise UserError(f"{name} of model {manifest.model_name!r} is not YAML with settings: {error}") from error
            break
    given = {**found, **_snapshot(store / "config" / "config.properties", manifest.model_name)}
    try:
        made = Settings(
            int(given.get("batchSize", 1)), float(given.get("maxBatchDelay", 100)) / 1000, float(given.get("responseTimeout", 120)), found
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"the settings of model {manifest.model_name!r} hold what is no number: {error}") from error
    if made.batch_size < 1 or made.batch_delay_s < 0 or made.timeout_s <= 0:
        raise UserError(f"the settings of model {manifest.model_name!r} are out of range: {made}")
    return made


def _snapshot(path: Path, model: str) -> dict[str, Any]:
    """What a ``config.properties`` says of a model, in TorchServe's form."""
    if not path.is_file():
        return {}
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    try:
        versions = (json.loads(lines.get("model_snapshot", "{}")).get("models") or {}).get(model) or {}
        return dict(next(iter(versions.values()), {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"model_snapshot of {path.name} is not what TorchServe writes: {error}") from error


def find_archive(store: Path) -> Path:
    """The one archive of a model store, of a folder, or the file itself.

    Raises:
        UserError: there is none, or more than one.
    """
    if store.is_file() or (store / "MAR-INF").is_dir():
        return store
    folder = store / "model-store" if (store / "model-store").is_dir() else store
    found = sorted(path for path in folder.iterdir() if path.name.endswith((".mar", ".tar.gz", ".tgz")) or (path / "MAR-INF").is_dir())
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        what = "one archive (.mar, .tar.gz, or a folder with MAR-INF)"
        raise UserError(f"{what} is expected in {folder}, found {names}; serve several models with several services")
    return found[0]


class Model:
    """A loaded model: `handle` answers a list of instances.

    Args:
        store: the model store (or the archive).
        scratch: an empty place to unpack into.
    """

    def __init__(self, store: Path, scratch: Path) -> None:
        archive = Archive.open(find_archive(store))
        self.manifest: Manifest = archive.manifest
        self.name = archive.manifest.model_name
        folder = scratch / "model"
        archive.extract(folder)
        self.provenance: Mapping[str, Any] = {}
        if PROVENANCE in archive.names:
            self.provenance = json.loads(archive.read(PROVENANCE))
        self.settings = settings_of(store, folder, archive.manifest)
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        self.context = Context(self.name, str(folder), manifest, model_yaml_config=self.settings.content)
        self.handler = handlers.load(folder, archive.manifest.handler, self.context)

    def handle(self, instances: list[Any], context: Context) -> Any:
        """What the handler answers."""
        return self.handler.answer(instances, context)

    def headers(self) -> dict[str, str]:
        """Where an answer comes from, for the response's headers."""
        data, code = self.provenance.get("data") or {}, self.provenance.get("code") or {}
        named = {
            "pdk-model": self.name,
            "pdk-model-version": str(self.provenance.get("version") or self.manifest.model_version),
            "pdk-data-repo": data.get("repo"),
            "pdk-data-commit": data.get("commit"),
            "pdk-code-sha": code.get("sha"),
        }
        return {key: value for key, value in named.items() if value}
